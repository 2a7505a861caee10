"""A finished run as a tagger: the same scores as its own test, on any kind of jets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import awkward as ak
import numpy as np
import pandas as pd
import pytest
import torch
import uproot

import jetscale
from jetscale.common.usage import UsageError
from jetscale.jets.datasets.top_tagging import TOP_TAGGING
from jetscale.jets.errors import JetDataError
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.inputs import Inputs
from jetscale.model.network import build_network
from jetscale.runs.done import read_done, write_done
from jetscale.tagger.load import Tagger
from jetscale.tagger.sources import open_file
from jetscale.training.checkpoint import read_checkpoint, write_weights
from tests.jets.top_tagging import table_of, write_top_tagging
from tests.runs import quiet_environment


def columns_of(path: Path) -> ak.Array:
    with uproot.open(path) as file:
        return file["tree"].arrays()


def test_importing_jetscale_costs_nothing() -> None:
    code = "import sys, jetscale; print([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=quiet_environment()
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_its_loss_is_the_one_that_the_run_recorded(tagger: Tagger, run: Path) -> None:
    """On the run's own test jets, which come from a packed store."""
    for weights in ("raw", "ema"):
        told = json.loads((run / "done.json").read_text())["final"][weights]
        jets = EvalSet(tagger.run.data, "jetclass", n_jets=told["jets"])
        loaded = jetscale.load(run, weights=weights)
        losses = []
        for batch in jets.batches(64):
            scores = loaded.score_batch(batch)
            losses.append(-np.log(scores[np.arange(len(scores)), batch.labels_B.numpy()]))
        assert np.concatenate(losses).mean(dtype=np.float64) == pytest.approx(told["loss"], rel=1e-5)


def test_inputs_of_a_file_are_those_of_the_store(tagger: Tagger, files: list[Path]) -> None:
    """Every jet of the store is found among the jets of the files, bit by bit."""

    def jets_of(batch) -> list[bytes]:
        ends = batch.lengths_B.cumsum(0)
        return [
            batch.x_TF[end - n : end].numpy().tobytes() + batch.pid_T[end - n : end].numpy().tobytes()
            for end, n in zip(ends, batch.lengths_B, strict=True)
        ]

    stored = [jet for batch in EvalSet(tagger.run.data, "jetclass").batches(50) for jet in jets_of(batch)]
    read = []
    for path in files:
        with open_file(path, tagger.inputs.columns, tagger.run.dataset) as opened:
            for raw in opened.chunks:
                read += [jet for batch in tagger.inputs.batches(raw, 7) for jet in jets_of(batch)]
    assert len(read) == 200
    assert sorted(stored) == sorted(read)


def test_files_and_arrays_give_the_same_scores_in_order(tagger: Tagger, files: list[Path]) -> None:
    together = tagger.scores(files)
    assert together.shape == (200, 10)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    one_by_one = np.concatenate([tagger.scores(columns_of(path)) for path in files])
    np.testing.assert_allclose(together, one_by_one, atol=1e-6)
    assert np.array_equal(together, tagger.scores(files[0].parent))
    assert np.array_equal(together, tagger.scores(str(files[0].parent / "*.root")))
    jets = columns_of(files[3])
    mapping = {name: jets[name].to_list() for name in tagger.inputs.columns}
    backwards = tagger.scores({name: values[::-1] for name, values in mapping.items()})
    np.testing.assert_allclose(backwards[::-1], tagger.scores(files[3]), atol=1e-6)


def test_files_without_labels(tagger: Tagger, files: list[Path], tmp_path: Path) -> None:
    """Only the columns that the inputs are made of, in a ROOT file and in a parquet file."""
    jets = columns_of(files[1])[list(tagger.inputs.columns)]
    with uproot.recreate(tmp_path / "mine.root") as file:
        tree = file.mktree("tree", {name: jets[name].type.content for name in jets.fields})
        tree.extend({name: jets[name] for name in jets.fields})
    ak.to_parquet(jets, tmp_path / "mine.parquet", extensionarray=False)
    expected = tagger.scores(files[1])
    np.testing.assert_allclose(tagger.scores(tmp_path / "mine.root"), expected, atol=1e-6)
    np.testing.assert_allclose(tagger.scores(tmp_path / "mine.parquet"), expected, atol=1e-6)


def test_files_of_another_dataset(tagger: Tagger, lab: Path) -> None:
    scores = tagger.scores(lab / "data/JetClassII")
    assert scores.shape == (490, 10)


def test_hdf5_files(tagger: Tagger, files: list[Path], tmp_path: Path) -> None:
    """Top tagging has momenta alone: a network with these inputs scores its HDF5 files, others cannot."""
    table = table_of(30, 1)
    path = write_top_tagging(tmp_path / "test.h5", table=table)
    with pytest.raises(JetDataError, match=r"test\.h5: the inputs need part_charge.*top tagging does not"):
        tagger.scores(path)
    features = TOP_TAGGING.feature_set("kinematics")
    network = build_network("deepsets", 8, 2, features.n_features, 0, {}).eval()
    run = replace(tagger.run, dataset=TOP_TAGGING)
    momenta = Tagger(run, network, ("QCD", "top"), Inputs(features, 128, False), "raw")
    scores = momenta.scores(path)
    assert scores.shape == (30, 2)
    parquet = write_top_tagging(tmp_path / "any_name.parquet", table=table.drop(columns="is_signal_new"))
    np.testing.assert_allclose(momenta.scores(parquet), scores, atol=1e-6)
    assert momenta.scores(files[0]).shape == (20, 2)  # JetClass has these columns too


def test_the_users_random_numbers_stay(run: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    jetscale.load(run)
    assert torch.equal(torch.rand(3), expected)


def changed(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such folder; give a run directory"):
        jetscale.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no run directory .*finished runs below it: multirun/"):
        jetscale.load("multirun")
    with pytest.raises(UsageError, match=r"weights=best: must be one of raw, ema"):
        jetscale.load(run, weights="best")
    unfinished = changed(run, tmp_path / "unfinished")
    (unfinished / "done.json").unlink()
    with pytest.raises(UsageError, match=r"unfinished: the run is not finished \(done.json is missing\)"):
        jetscale.load(unfinished)
    damaged = changed(run, tmp_path / "damaged")
    content = bytearray((damaged / "checkpoints/final.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "checkpoints/final.pt").write_bytes(content)
    with pytest.raises(UsageError, match=r"final\.pt is damaged.*put back an undamaged copy"):
        jetscale.load(damaged)


def test_runs_below_a_folder_are_named_without_their_copies(run: Path, tmp_path: Path) -> None:
    """The W&B client keeps copies of finished runs, without their weights."""
    folder = tmp_path / "scratch/dim=8/seed=0"
    copy = folder / "wandb/offline-run/files/jetscale"
    copy.mkdir(parents=True)
    shutil.copy(run / "done.json", copy)
    with pytest.raises(UsageError, match=r"seed=<s>\[/<overrides>\]\)$"):
        jetscale.load(folder)
    below = changed(run, folder / "finetune.lr=0.003")
    with pytest.raises(UsageError, match=rf"finished runs below it: {re.escape(str(below))}$"):
        jetscale.load(folder)


def test_names_of_files_in_any_form(tagger: Tagger, files: list[Path]) -> None:
    expected = tagger.scores(files[:2])
    names = [str(file) for file in files[:2]]
    for form in (iter(files[:2]), np.array(names), np.array(files[:2]), pd.Series(names)):
        assert np.array_equal(tagger.scores(form), expected)
    assert np.array_equal(tagger.scores(files[0].parent.glob(files[0].name)), expected[:20])


def test_other_arrays_are_warned_of_again(
    tagger: Tagger, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    for path in files[:2]:
        jets = columns_of(path)
        tagger.scores(ak.with_field(jets, jets["part_dphi"] * 0, "part_dphi"))
        tagger.scores(ak.with_field(jets, jets["part_energy"] / 1000, "part_energy"))
    said = [record.message for record in caplog.records]
    assert ["part_dphi does not fit" in one for one in said] == [True, False, True, False]
    assert ["is below pT" in one for one in said] == [False, True, False, True]


def test_a_run_without_an_average(run: Path, tmp_path: Path) -> None:
    bare = changed(run, tmp_path / "bare")
    state = read_checkpoint(bare / "checkpoints/final.pt")
    done = read_done(bare)
    write_weights(bare / "checkpoints/final.pt", {**state, "average": None}, 100)
    write_done(bare, done.record, done.identity)
    assert jetscale.load(bare).weights == "raw"
    with pytest.raises(UsageError, match=r"weights=ema: .*kept no average of its weights; take weights=raw"):
        jetscale.load(bare, weights="ema")


@pytest.mark.parametrize(
    "form",
    [
        lambda jets: {name: list(map(np.asarray, values)) for name, values in jets.items()},
        lambda jets: {name: objects(values) for name, values in jets.items()},  # uproot's library="np"
        lambda jets: ak.zip(jets, 1).to_list(),
        lambda jets: ak.mask(ak.zip(jets, 1), np.ones(20, bool)),  # as nullable columns of parquet are read
        lambda jets: {
            name: ak.mask(values, ak.ones_like(values, dtype=bool)) for name, values in jets.items()
        },
        lambda jets: ak.to_arrow_table(ak.zip(jets, 1)),
        lambda jets: {**jets, "weight": 1.0, "run": None, "edges": [1, 2], 7: "a note"},
        lambda jets: pd.DataFrame({name: list(map(np.asarray, values)) for name, values in jets.items()}),
        lambda jets: pd.DataFrame(
            {name: list(map(np.asarray, values)) for name, values in jets.items()},
            index=np.linspace(-2.5, 2.5, 20),
        ),
    ],
)
def test_arrays_of_any_kind(tagger: Tagger, files: list[Path], form) -> None:
    columns = columns_of(files[0])
    jets = {name: columns[name] for name in tagger.inputs.columns}
    assert np.array_equal(tagger.scores(form(jets)), tagger.scores(files[0]))


def objects(values: ak.Array) -> np.ndarray:
    """An array of arrays."""
    made = np.empty(len(values), object)
    made[:] = [np.asarray(one) for one in values]
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda jets: {"part_px": jets["part_px"]}, r"arrays: no column part_charge, .*part_py"),
        (lambda jets: {**jets, "part_py": jets["part_py"][:5]}, r"part_py has 5 jets, part_px has 20"),
        (lambda jets: {**jets, "part_px": jets["part_energy"] * np.nan}, r"arrays: entry 0.*part_px is nan"),
        (lambda jets: {**jets, "part_px": ak.num(jets["part_px"])}, r"part_px is .*not a list of numbers"),
        (lambda jets: {**jets, "part_px": ak.mask(jets["part_px"], jets["part_px"] > 9)}, r"entry 0: .*None"),
        (lambda jets: ak.mask(ak.zip(jets, 1), np.arange(20) != 7), r"entry 7: part_px holds None; leave"),
        (lambda jets: {**jets, "part_px": ak.pad_none(jets["part_px"], 99)}, r"entry 0: part_px holds None"),
        (lambda jets: None, r"no named columns in a NoneType; give file names, a mapping or"),
        (lambda jets: {"a.root", "b.root"}, r"no named columns in a set; give file names"),
        (lambda jets: {**jets, "part_dphi": jets["part_dphi"] + 5}, r"part_dphi = .*wrapped"),
        (lambda jets: [1, 2], r"no named columns"),
        (lambda jets: {**jets, "part_px": 1.0}, r"part_px is a float, not one entry per jet"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_jets(tagger: Tagger, files: list[Path], change, message: str) -> None:
    jets = columns_of(files[0])
    with pytest.raises(JetDataError, match=message):
        tagger.scores(change({name: jets[name] for name in tagger.inputs.columns}))
