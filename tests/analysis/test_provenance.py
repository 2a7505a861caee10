"""Where jets and runs come from: what the records tell reaches the report, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.fitting.numbers import plain
from jetscale.analysis.output.provenance import provenance
from jetscale.analysis.settings import UncertaintySettings
from jetscale.common.files import write_sealed
from jetscale.jets.reading.manifests import maker_of, manifest_path
from jetscale.runs.done import write_done
from jetscale.runs.record import FinalLoss, JetsFrom
from jetscale.simulate import SIMULATOR_VERSION
from tests.runs import run_record

WIDTHS = {8: 3000, 16: 11000, 24: 24000, 32: 42000}
SIMULATED = f"jetscale's simulator, version {SIMULATOR_VERSION}"
SETTINGS = FitSettings(uncertainty=UncertaintySettings(method="none", profile=False), multiverse=False)


def write_run(root: Path, dim: int, made_by: str | None) -> None:
    """A finished run whose record names commit, accuracy and jets."""
    folder = root / f"scratch/dim={dim}/seed=0"
    folder.mkdir(parents=True)
    losses = [(step, 2.0 * step**-0.1 + 10 / dim) for step in (100, 300, 1000, 3000)]
    lines = [
        {"phase": "finetune", "step": step, "jets": 128 * step, "constituents": 5120 * step,
         "flops": 240.0 * WIDTHS[dim] * 128 * step, "split": "test", "weights": "raw", "loss": loss,
         "accuracy": 0.5, "lr": 1e-3, "seconds": 1.0}
        for step, loss in losses
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(f"subset: scratch\nseed: 0\nmodel: {{dim: {dim}}}\n")
    record = run_record(
        dim=dim,
        n_params={"total": WIDTHS[dim]},
        jets=128 * 3000.0,
        final={"raw": FinalLoss(loss=losses[-1][1], accuracy=0.25 + dim / 100, jets=4000)},
        jets_from={"finetune/train": JetsFrom(dir="data", fingerprint="ab" * 32, made_by=made_by)},
        git={"commit": "c0ffee" * 6 + "abcd", "dirty": dim == 8},
    )
    write_done(folder, record, "f" * 64)


@pytest.fixture
def sweep_of_records(tmp_path: Path) -> Path:
    for dim in WIDTHS:
        write_run(tmp_path / "sweep", dim, SIMULATED if dim > 8 else None)
    return tmp_path / "sweep"


def test_what_records_tell_is_told_also_of_a_saved_table(sweep_of_records: Path, tmp_path: Path) -> None:
    losses = load_losses(sweep_of_records)
    fit(losses, SETTINGS).save(tmp_path / "out")
    for table in (losses, load_losses(tmp_path / "out/losses.parquet")):
        results = plain(fit(table, SETTINGS).to_json())
        found = provenance(results, table)
        facts = dict(found.facts)
        assert facts["jets of finetune/train"] == (
            f"{SIMULATED} (3 runs), not recorded (1 runs); fingerprint abababababab"
        )
        assert facts["commit of the runs"] == "c0ffeec0ffee (3 runs), c0ffeec0ffee+ (1 runs)"
        assert facts["runs finished"].startswith("20")
        assert [run["accuracy"] for run in found.runs] == [0.25 + dim / 100 for dim in WIDTHS]
        assert [run["loss"] for run in found.runs] == pytest.approx([2 * 3000**-0.1 + 10 / d for d in WIDTHS])
        assert found.n_runs == 4


def test_of_a_foreign_table_nothing_is_made_up(tmp_path: Path) -> None:
    lines = [f"{N},{D},{1 + N**-0.3 * 50 + D**-0.3 * 50}" for N in (1e6, 1e7, 1e8) for D in (1e8, 1e9, 1e10)]
    (tmp_path / "t.csv").write_text("\n".join(["N,D,loss", *lines]))
    losses = load_losses(tmp_path / "t.csv")
    found = provenance(plain(fit(losses, SETTINGS).to_json()), losses)
    facts = dict(found.facts)
    assert facts["jets"] == "a table of another program: D counts its samples"
    assert facts["commit of the runs"] == facts["runs finished"] == "not recorded"
    assert {run["accuracy"] for run in found.runs} == {None}
    assert {run["size"] for run in found.runs} == {"–"}


def test_the_maker_of_jets_is_read_from_the_manifest(tmp_path: Path) -> None:
    file = tmp_path / "WToQQ_000.root"
    file.write_bytes(b"jets")
    assert maker_of(file) == "files without a manifest of the simulator"
    write_sealed(manifest_path(file), {"settings": {"simulator version": 2}, "made_by": "jetscale 0.1.0"})
    assert maker_of(file) == "jetscale's simulator, version 2"
    manifest_path(file).write_text(json.dumps({"settings": {"physics": 1}, "made_by": "jetscale 0.1.0"}))
    assert maker_of(file) == "jetscale's simulator, version 1"
