"""``done.json``: written and read with its types; what is unknown, missing or of another type is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jetscale.runs.done import DamagedRun, read_done, read_record, write_done
from jetscale.runs.layout import DONE
from jetscale.runs.record import FinalLoss, JetsFrom, PretrainRecord, RunRecord
from jetscale.runs.sealed import read_json, write_json_sealed
from tests.runs import run_record

PRETRAIN = PretrainRecord(
    steps=24, jets=192, constituents=7_680, flops=1e8, seconds=1.0, n_params={"total": 2_946}, batch_size=8,
    lr=1e-3, fingerprint="f", data="d", path="multirun/backbones/x",
)  # fmt: skip
FULL = run_record(
    subset="qcd",
    pretrain=PRETRAIN,
    variant="finetune.lr=0.003",
    final={kind: FinalLoss(loss=1.5, accuracy=0.5, jets=120) for kind in ("raw", "ema")},
    jets_from={"finetune/train": JetsFrom(dir="data", fingerprint="a" * 64)},
    git={"commit": "0" * 40, "dirty": False},
)


def rewrite(folder: Path, change: dict[str, Any], *without: str) -> None:
    content = read_json(folder / DONE)[0] | change
    write_json_sealed(folder / DONE, {key: value for key, value in content.items() if key not in without})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_done(tmp_path, FULL, "i" * 64)
    done = read_done(tmp_path)
    assert done is not None
    assert (done.record, done.identity, done.verified) == (FULL, "i" * 64, True)
    write_done(tmp_path, PRETRAIN, "f")
    backbone = read_record(tmp_path, PretrainRecord)
    assert backbone is not None
    assert backbone.record == PretrainRecord(**(vars(PRETRAIN) | {"path": None}))


def test_runs_whose_backbone_was_found_name_its_identity_and_are_read(tmp_path: Path) -> None:
    write_done(tmp_path, FULL, "i")
    rewrite(tmp_path, {"pretrain": vars(PRETRAIN) | {"identity": "f"}})
    done = read_done(tmp_path)
    assert done is not None
    assert done.record == FULL


@pytest.mark.parametrize(
    ("change", "without", "message"),
    [
        ({}, ("seconds",), r"done\.json lacks the key 'seconds'"),
        ({"n_parms": 3}, (), r"done\.json has the unknown key 'n_parms'.*use the version that wrote it"),
        ({"steps": "40"}, (), r"done\.json: the key 'steps' has the value '40', and must be int"),
        ({"final": {"raw": 1.5}}, (), r"done\.json: the key 'final\.raw' has the value 1\.5"),
        ({"final": {"raw": {"loss": 1.5}}}, (), r"done\.json lacks the key 'final\.raw\.accuracy'"),
        ({"pretrain": {"steps": 3}}, (), r"done\.json lacks the key 'pretrain\.jets'"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, Any], without: tuple[str, ...], message: str
) -> None:
    write_done(tmp_path, FULL, "i")
    rewrite(tmp_path, change, *without)
    with pytest.raises(DamagedRun, match=message):
        read_done(tmp_path)


def test_files_of_format_1_may_lack_any_key_and_have_others(tmp_path: Path) -> None:
    content = {"steps": 400, "final": {"raw": {"loss": 1.5}}, "pretrain": {"jets": 8}, "cluster": "x"}
    (tmp_path / DONE).write_text(json.dumps(content))
    done = read_done(tmp_path)
    assert done is not None
    assert not done.verified
    assert (done.record.steps, done.record.final_losses, done.record.lr) == (400, {"raw": 1.5}, None)
    assert done.record.pretrain is not None
    assert (done.record.pretrain.jets, done.record.pretrain.n_params_total) == (8, None)
    assert isinstance(done.record, RunRecord)
