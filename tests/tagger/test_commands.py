"""``python -m jetscale.tagger``: scores of files, and how good they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import awkward as ak
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from PIL import Image

from jetscale.common.files import ABANDONED
from jetscale.common.usage import UsageError
from jetscale.jets.errors import JetDataError
from jetscale.tagger import predict as predict_module
from jetscale.tagger.__main__ import main
from jetscale.tagger.evaluate import _of_files
from jetscale.tagger.load import Tagger, load
from jetscale.tagger.settings import Evaluate
from jetscale.tagger.sources import files_named
from tests.jets.variants import columns_of, write_root
from tests.runs import quiet_environment


@pytest.mark.parametrize("command", ["predict", "evaluate", "export"])
def test_help_is_quick(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jetscale.tagger", command, "--help"],
        capture_output=True, text=True, env=quiet_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "run=" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "scipy", "matplotlib", "pandas", "uproot", "pyarrow"}


def test_predict_writes_one_row_a_jet_in_order(
    tagger: Tagger, run: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(predict_module, "GROUP", 50)  # row groups of three files of 20 jets, and a rest
    named = ",".join(str(path) for path in files[::-1])
    main(["predict", f"run={run}", f"files={named}", f"out={tmp_path}/scores.parquet"])
    main(["predict", f"run={run}", f"files={named}", f"out={tmp_path}/scores.root"])
    assert "200 jets of 10 file(s)" in capsys.readouterr().out
    groups = pq.read_metadata(tmp_path / "scores.parquet")
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [60, 60, 60, 20]
    table = pq.read_table(tmp_path / "scores.parquet").to_pandas()
    assert list(table.columns) == ["file", "row", "label", *(f"score_{name}" for name in tagger.class_names)]
    expected = tagger.scores(files[::-1])
    found = table[[f"score_{name}" for name in tagger.class_names]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert table["file"].tolist() == [str(path) for path in files[::-1] for _ in range(20)]
    assert table["row"].tolist() == [row for _ in files for row in range(20)]
    of_process = {"TTBar_": "Tbqq", "ZJetsToNuNu_": "QCD", "HToWW2Q1L_": "Hqql"}
    for process, label in of_process.items():
        assert set(table["label"][table["file"].str.contains(process)]) == {label}
    with uproot.open(tmp_path / "scores.root") as file:
        tree = file["scores"].arrays(library="np")
        names = file["files"]["name"].array(library="np")
    assert np.array_equal(np.stack([tree[f"score_{n}"] for n in tagger.class_names], axis=1), found)
    assert [names[number] for number in tree["file"]] == table["file"].tolist()
    assert tree["label"].tolist() == table["label"].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.parquet", "scores.root"]


def test_memory_of_predict_does_not_grow_with_the_jets(
    tagger: Tagger, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs of 1,920 further jets would take 3.5 MB."""
    monkeypatch.setattr(predict_module, "GROUP", 300)
    path = next((lab / "data/JetClassII").rglob("Res34P_0000.parquet"))
    out = tmp_path / "scores.parquet"

    def peak(times: int) -> tuple[int, int]:
        tracemalloc.start()
        n_jets, _ = predict_module.score_files(tagger, [path] * times, out)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return n_jets, found

    peak(1)  # what is imported and compiled at the first use
    (few, peak_of_few), (many, peak_of_many) = peak(3), peak(15)
    assert many == 5 * few == 2_400
    assert peak_of_many < peak_of_few + 500_000
    table = pq.read_table(out).to_pandas()
    assert table["row"].tolist() == list(range(160)) * 15
    assert set(table["file"]) == {str(path)}
    assert np.array_equal(table["score_Hbb"][:160], table["score_Hbb"][-160:])


def test_jets_behind_a_linked_folder_are_scored(files: list[Path], tmp_path: Path) -> None:
    """As in training: half of a data set may be on another disk."""
    (tmp_path / "jets").mkdir()
    (tmp_path / "jets/a.root").symlink_to(files[0])
    (tmp_path / "jets/more").symlink_to(files[0].parent)
    beside = sorted(files[0].parent.glob("*.root"))
    assert files_named(tmp_path / "jets") == [
        tmp_path / "jets/a.root",
        *(tmp_path / "jets/more" / one.name for one in beside),
    ]


def test_predict_without_labels_and_nothing_left_after_an_error(
    run: Path, lab: Path, files: list[Path], tmp_path: Path
) -> None:
    jets = pq.read_table(next((lab / "data/JetClassII").rglob("QCD_0000.parquet")))
    pq.write_table(jets.drop_columns(["jet_label"]), tmp_path / "mine.parquet")
    words = ["predict", f"run={run}", f"out={tmp_path}/out/scores.parquet", "weights=raw"]
    main([*words, f"files={tmp_path}/mine.parquet,{files[0]}"])
    assert "label" not in pq.read_schema(tmp_path / "out/scores.parquet").names
    (tmp_path / "out/scores.parquet").unlink()
    bad = jets.to_pandas()
    bad.at[199, "part_energy"] = bad.at[199, "part_energy"] * -1  # long after the first jets were scored
    bad.to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(JetDataError, match=r"bad\.parquet: entry 199, .*part_energy = -.* must be above 0"):
        main([*words, f"files={files[0]},{tmp_path}/bad.parquet"])
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scores"], r"'scores' is no command"),
        (["predict", "files=x.root"], r"no run is named; give its directory, run=DIRECTORY"),
        (["predict", "run={run}"], r"no files are named"),
        (["predict", "run={run}", "files=x.root"], r"x.root: no such file"),
        (["predict", "run={run}", "files=x.root", "out=x.csv"], r"must end in .parquet or .root"),
        (["predict", "run={run}", "files=https://a/x.root"], r"only local files"),
        (["predict", "run={run}", "files={run}/checkpoints"], r"no .* files with jets are in this folder"),
        (["predict", "run={run}", "files={run}/config.yaml"], r"config.yaml: jets are read from"),
        (["evaluate", "run={run}", "files={jetclass2}"], r"its jets are of JetClass-II, the classes of the"),
        (["evaluate", "run={run}", "dir=nowhere"], r"no test jets of jetclass: .*nowhere"),
        (["evaluate", "run={run}", "jets=201"], r"201 test jets asked, there are 200"),
    ],
)  # fmt: skip
def test_what_is_refused(run: Path, lab: Path, words: list[str], message: str) -> None:
    jetclass2 = next((lab / "data/JetClassII").rglob("QCD_0000.parquet"))
    with pytest.raises((UsageError, JetDataError), match=message):
        main([word.format(run=run, jetclass2=jetclass2) for word in words])


def test_a_folder_is_listed_as_prepare_lists_it(
    run: Path, tagger: Tagger, files: list[Path], tmp_path: Path
) -> None:
    """Through links, without hidden folders, and without passing over jets in a form that is not read."""
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    for folder in (mine / ".old", elsewhere):
        folder.mkdir(parents=True)
    shutil.copy(files[0], mine / "b.root")
    shutil.copy(files[1], elsewhere / "a.root")
    shutil.copy(files[2], mine / ".old/c.root")
    (mine / "a folder").symlink_to(elsewhere)
    assert np.array_equal(tagger.scores(mine), tagger.scores([files[1], files[0]]))
    for name in ("c.ROOT", "d.root.gz", "e.root.part"):
        shutil.copy(files[3], mine / name)
        with pytest.raises(JetDataError, match=rf"{name}: looks like jets but is not read: files must end"):
            main(["predict", f"run={run}", f"files={mine}", f"out={tmp_path}/scores.parquet"])
        (mine / name).unlink()
    (mine / "f.root").symlink_to("/gone")
    with pytest.raises(JetDataError, match=r"f\.root: a link to /gone, which leads nowhere"):
        tagger.scores(mine)


@pytest.mark.parametrize("again", ["{file}", "{folder}/../test_20M/{name}", "{link}"])
def test_evaluate_counts_no_file_twice(run: Path, files: list[Path], tmp_path: Path, again: str) -> None:
    (tmp_path / "link.root").symlink_to(files[0])
    second = again.format(
        file=files[0], folder=files[0].parent, name=files[0].name, link=tmp_path / "link.root"
    )
    with pytest.raises(UsageError, match=r"the same file as .*, its jets would count twice; name it once"):
        main(["evaluate", f"run={run}", f"files={files[0]},{second}", f"out={tmp_path}"])


def test_the_first_jets_of_files_of_one_class_are_no_sample(
    run: Path, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["evaluate", f"run={run}", f"files={files[0].parent}", f"out={tmp_path}", "replicates=2"]
    main(words)
    assert not caplog.records
    main([*words, "jets=20"])
    (record,) = caplog.records
    assert "hold none of QCD, Hcc, Hgg, H4q, Hqql, ..., which come later" in record.message
    assert json.loads((tmp_path / "evaluate.json").read_text())["jets_of_class"]["Hbb"] == 20
    assert "auc_ovr" not in json.loads((tmp_path / "evaluate.json").read_text())["metrics"]


def test_train_files_are_named_as_such(
    run: Path, lab: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder of the data may hold all splits."""
    main(["evaluate", f"run={run}", f"files={lab}/data/JetClass", f"out={tmp_path}", "replicates=2"])
    n_train = len(list((lab / "data/JetClass/Pythia/train_100M").glob("*.root")))
    assert f"{n_train} of " in caplog.text
    assert "HToBB_000.root first, are of the train split by their names" in caplog.text
    assert "have jets of the train split" not in caplog.text, "said once"


def test_train_jets_in_files_of_other_names_are_noticed(
    run: Path, lab: Path, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "jets").mkdir()
    for file in files[1:]:
        shutil.copy(file, tmp_path / "jets")
    seen = lab / "data/JetClass/Pythia/train_100M/HToBB_000.root"
    shutil.copy(seen, tmp_path / "jets" / files[0].name)
    main(["evaluate", f"run={run}", f"files={tmp_path}/jets", f"out={tmp_path}", "replicates=2"])
    assert "1 of 10 files have jets of the train split" in caplog.text
    assert f"{tmp_path}/jets/{files[0].name} those of" in caplog.text
    assert seen.name in caplog.text


@pytest.mark.parametrize("place", ["https://127.0.0.1:9/jets", "s3://no-bucket/jets", "nowhere"])
def test_files_are_measured_where_the_store_is_not(
    run: Path, files: list[Path], tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["evaluate", f"run={run}", f"files={files[0].parent}", f"out={tmp_path}", "replicates=2"]
    main([*words, f"dir={place}"])
    assert not caplog.records
    assert json.loads((tmp_path / "evaluate.json").read_text())["jets"] == 200


def test_files_that_hold_no_class_of_the_run(
    pretraining: Path, lab: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = pq.read_table(next((lab / "data/JetClassII").rglob("QCD_0000.parquet")))
    at = table.column_names.index("jet_label")
    labels = pa.array(np.full(len(table), 161), table.schema.field(at).type)  # QCD_bbccss
    pq.write_table(table.set_column(at, table.schema.field(at), labels), tmp_path / "QCD_0000.parquet")
    tagger = load(pretraining)
    data = replace(tagger.run.data, qcd_labels="17", selection="sophon")
    tagger = replace(tagger, run=replace(tagger.run, data=data))
    with pytest.raises(UsageError, match=rf"none of its {len(table)} jets belongs to a class of the run"):
        _of_files(tagger, Evaluate(files=str(tmp_path)))
    assert "was made with data.selection=sophon; the files are measured as they are" in caplog.text


def test_jets_of_no_class_are_left_out_with_a_warning(
    pretraining: Path, lab: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = pq.read_table(next((lab / "data/JetClassII").rglob("QCD_0000.parquet")))
    at = table.column_names.index("jet_label")
    labels = np.where(np.arange(len(table)) < 3, 161, 187)  # QCD_bbccss, QCD_light
    table = table.set_column(at, table.schema.field(at), pa.array(labels, table.schema.field(at).type))
    pq.write_table(table, tmp_path / "QCD_0000.parquet")
    tagger = load(pretraining)
    tagger = replace(tagger, run=replace(tagger.run, data=replace(tagger.run.data, qcd_labels="17")))
    jets = _of_files(tagger, Evaluate(files=str(tmp_path)))
    assert len(jets.labels_J) == len(jets.scores_JK) == len(table) - 3
    assert caplog.records[-1].message == (
        f"3 of {len(table)} jets are left out: their labels belong to no class of the run "
        "(data.qcd_labels=17)"
    )


def test_names_with_colons_and_brackets(
    run: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """A colon may be taken for an address, or for a tree in a file, and brackets for a pattern."""
    folder = tmp_path / "a:b[1]"
    folder.mkdir()
    shutil.copy(files[0], folder)
    where = run.absolute()
    monkeypatch.chdir(tmp_path)
    for out in ("s:1.parquet", "a:b[1]/s.parquet", "s:1.root"):
        main(["predict", f"run={where}", f"files=a:b[1]/{files[0].name}", f"out={out}"])
        assert Path(out).is_file()
        assert f"{out}: 20 jets of 1 file(s)" in capsys.readouterr().out
    main(["evaluate", f"run={where}", f"files=a:b[1]/{files[0].name}", "out=e:v:[b]", "replicates=2"])
    assert "e:v:[b]: evaluate.json, roc.svg, confusion.svg" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_predict_replaces_scores_and_nothing_else(
    run: Path, lab: Path, files: list[Path], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    words = ["predict", f"run={run}", f"files={files[0]}", f"out={out}"]
    out.touch()  # as a job script reserves a name
    for _ in range(2):
        main(words)
    jets = files[1] if suffix == ".root" else next((lab / "data/JetClassII").rglob("*.parquet"))
    for content in (jets.read_bytes(), b"something else"):
        out.write_bytes(content)
        with pytest.raises(
            UsageError, match=r"is there and is no file of scores as predict writes it; choose"
        ):
            main(words)
        assert out.read_bytes() == content


def test_a_table_that_somebody_made_of_scores_is_kept(run: Path, files: list[Path], tmp_path: Path) -> None:
    """Columns of its own are lost with it, wherever the others came from."""
    scores, root = tmp_path / "scores.parquet", tmp_path / "scores.root"
    for out in (scores, root):
        main(["predict", f"run={run}", f"files={files[0]}", f"out={out}"])
    table = pq.read_table(scores)
    mine = pd.DataFrame({"file": ["a.root"], "row": [0], "my_weight": [1.5], "mjj": [800.0]})
    mine.to_parquet(tmp_path / "weights.parquet")
    pq.write_table(table.append_column("mjj", pa.array(np.ones(20))), tmp_path / "added.parquet")
    table.to_pandas().assign(score_QCD=0.5).to_parquet(tmp_path / "changed.parquet")
    with uproot.open(root) as file, uproot.recreate(tmp_path / "added.root") as added:
        for name in ("files", "scores"):
            tree = file[name].arrays(library="np") | ({"mjj": np.ones(20)} if name == "scores" else {})
            added.mktree(name, {key: "string" if v.dtype == object else v.dtype for key, v in tree.items()})
            added[name].extend({key: v.tolist() if v.dtype == object else v for key, v in tree.items()})
    for name in ("weights.parquet", "added.parquet", "changed.parquet", "added.root"):
        content = (tmp_path / name).read_bytes()
        with pytest.raises(UsageError, match=rf"{name}: is there and is no file of scores as predict"):
            main(["predict", f"run={run}", f"files={files[0]}", f"out={tmp_path / name}"])
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_scores_beside_the_jets_are_no_jets(
    run: Path, files: list[Path], tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(files[0], tmp_path / "HToBB_100.root")
    out = tmp_path / f"a_scores{suffix}"
    main(["predict", f"run={run}", f"files={tmp_path}", f"out={out}"])
    assert not caplog.records
    main(["predict", f"run={run}", f"files={tmp_path}", f"out={out}"])
    main(["predict", f"run={run}", f"files={tmp_path}/*", f"out={tmp_path}/again{suffix}"])
    said = [record.message for record in caplog.records]
    left_out = f"1 file(s) with scores instead of jets are left out, {out} first"
    assert said == [f"{tmp_path}: {left_out}", f"{tmp_path}/*: {left_out}"]
    with pytest.raises(UsageError, match=r"is one of the files to score; choose another name"):
        main(["predict", f"run={run}", f"files={out}", f"out={out}"])
    with pytest.raises(UsageError, match=r"files=.*a_\*: names no file with jets, only scores"):
        main(["predict", f"run={run}", f"files={tmp_path}/a_*", f"out={tmp_path}/third{suffix}"])


def test_a_pattern_finds_folders_and_no_hidden_files(
    tagger: Tagger, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "jets_1").mkdir()
    shutil.copy(files[0], tmp_path / "jets_1/a.root")
    shutil.copy(files[1], tmp_path / "jets_2.root")
    shutil.copy(files[1], tmp_path / ".jets_3.root")
    expected = [tmp_path / "jets_1/a.root", tmp_path / "jets_2.root"]
    assert files_named(f"{tmp_path}/*") == files_named(f"{tmp_path}/**") == expected


def test_predict_removes_what_a_killed_one_left(run: Path, files: list[Path], tmp_path: Path) -> None:
    long_ago, at_work, other = ".s.77.part.parquet", ".s.78.part.parquet", ".t.77.part.parquet"
    for name in (long_ago, at_work, other):
        (tmp_path / name).touch()
        if name != at_work:
            os.utime(tmp_path / name, (0, time.time() - 1.1 * ABANDONED))
    main(["predict", f"run={run}", f"files={files[0]}", f"out={tmp_path}/s.parquet"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [at_work, other, "s.parquet"]


BAD_LABELS = {
    "some are missing": (".root", r"no branch label_H4q, .* in 'tree'"),
    "none is set": (".root", r"entry 19: labels are not one-hot, non-zero are \{\}"),
    "float": (".parquet", r"column jet_label is double, not an integer"),
    "text": (".parquet", r"column jet_label is .*string, not one number per jet"),
    "no values": (".parquet", r"column jet_label is null, not one number per jet"),
    "one is missing": (".parquet", r"entry 199: jet_label is null"),
    "one is too large": (".parquet", r"entry 199: jet_label is 999, outside 0 to 187"),
}


def with_bad_labels(case: str, root: Path, parquet: Path, to: Path) -> Path:
    if BAD_LABELS[case][0] == ".root":
        columns = columns_of(root)
        if case == "none is set":
            columns["label_Hbb"] = ak.Array(np.arange(20) < 19)
        else:
            columns = {name: c for name, c in columns.items() if not name.startswith("label_H")}
        return write_root(to / "mine.root", columns)
    table = pq.read_table(parquet)
    labels = table["jet_label"].to_pylist()
    changed = {
        "float": [float(label) for label in labels],
        "text": ["top"] * len(labels),
        "no values": [None] * len(labels),
        "one is missing": [*labels[:-1], None],
        "one is too large": [*labels[:-1], 999],
    }[case]
    table = table.drop_columns(["jet_label"]).append_column("jet_label", pa.array(changed))
    pq.write_table(table, to / "mine.parquet")
    return to / "mine.parquet"


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_cannot_be_used_are_absent_from_scores(
    run: Path,
    tagger: Tagger,
    pretraining: Path,
    lab: Path,
    files: list[Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    case: str,
) -> None:
    """Scores in memory have no labels, so nothing is said; a measurement needs them."""
    parquet = next((lab / "data/JetClassII").rglob("QCD_0000.parquet"))
    suffix, message = BAD_LABELS[case]
    path = with_bad_labels(case, files[0], parquet, tmp_path)
    expected = tagger.scores(files[0] if suffix == ".root" else parquet)
    assert np.array_equal(tagger.scores(path), expected)
    assert not caplog.records
    main(["predict", f"run={run}", f"files={path}", f"out={tmp_path}/scores.parquet"])
    (record,) = caplog.records
    assert re.search(rf"mine{suffix}: {message}; the labels of the file are not used", record.message)
    table = pq.read_table(tmp_path / "scores.parquet").to_pandas()
    assert "label" not in table.columns
    np.testing.assert_allclose(table[[f"score_{n}" for n in tagger.class_names]], expected, atol=1e-6)
    of_its_dataset = run if suffix == ".root" else pretraining
    with pytest.raises(JetDataError, match=message):
        main(["evaluate", f"run={of_its_dataset}", f"files={path}", f"out={tmp_path}"])


def test_a_file_without_jets_has_no_scores(
    run: Path, tagger: Tagger, lab: Path, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A selection may leave none; the other files are scored all the same."""
    write_root(tmp_path / "none.root", {name: values[:0] for name, values in columns_of(files[0]).items()})
    table = pq.read_table(next((lab / "data/JetClassII").rglob("QCD_0000.parquet")))
    pq.write_table(table[:0], tmp_path / "none.parquet")
    for name in ("none.root", "none.parquet"):
        assert tagger.scores(tmp_path / name).shape == (0, 10)
    said = [f"{tmp_path}/{name}: the file holds no jets" for name in ("none.root", "none.parquet")]
    assert [record.message for record in caplog.records] == said
    words = ["predict", f"run={run}"]
    main(
        [
            *words,
            f"files={tmp_path}/none.root,{files[0]},{tmp_path}/none.parquet",
            f"out={tmp_path}/s.parquet",
        ]
    )
    assert pq.read_table(tmp_path / "s.parquet").to_pandas()["file"].tolist() == [str(files[0])] * 20
    for suffix in (".root", ".parquet"):
        for _ in range(2):  # an empty table is replaced too
            main([*words, f"files={tmp_path}/none.root", f"out={tmp_path}/scores{suffix}"])
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 0
    with uproot.open(tmp_path / "scores.root") as file:
        assert file["scores"].num_entries == 0


def test_evaluate_on_the_runs_own_test_split_and_on_its_files(
    run: Path, files: list[Path], tmp_path: Path, capsys
) -> None:
    words = ["evaluate", f"run={run}", "weights=raw", "replicates=20"]
    main([*words, "jets=120", f"out={tmp_path}/few"])
    few = json.loads((tmp_path / "few/evaluate.json").read_text())
    told = json.loads((run / "done.json").read_text())["final"]["raw"]
    assert few["jets"] == told["jets"]
    assert few["metrics"]["accuracy"]["value"] == pytest.approx(told["accuracy"], abs=1e-9)
    assert few["metrics"]["loss"]["value"] == pytest.approx(told["loss"], rel=1e-5)
    main([*words, f"out={tmp_path}/all"])
    whole = json.loads((tmp_path / "all/evaluate.json").read_text())
    assert whole["jets"] == 200
    assert whole["source"]["tested_jets_verified"]
    assert np.trace(whole["confusion"]) == round(200 * whole["metrics"]["accuracy"]["value"])
    assert whole["metrics"]["rejection_Tbl"]["signal_efficiency"] == 0.995
    assert whole["metrics"]["rejection_Hbb"]["background_jets"] == 20
    assert "QCD rejection" in capsys.readouterr().out
    for name in ("roc", "confusion"):
        assert (tmp_path / f"all/{name}.svg").read_text().count("<path") > 20
        with Image.open(tmp_path / f"all/{name}.png") as image:
            assert min(image.size) > 500
    main([*words, f"files={files[0].parent}", f"out={tmp_path}/files"])
    of_files = json.loads((tmp_path / "files/evaluate.json").read_text())
    assert of_files["confusion"] == whole["confusion"]
    for key, measured in of_files["metrics"].items():
        expected = whole["metrics"][key]["value"]
        assert measured["value"] == (expected if expected is None else pytest.approx(expected, rel=1e-5)), key


def test_other_test_jets_than_the_runs_are_refused(run: Path, lab: Path, tmp_path: Path) -> None:
    train = lab / "data/JetClass/Pythia/train_100M"
    test = tmp_path / "data/JetClass/Pythia/test_20M"
    test.mkdir(parents=True)
    for path in train.glob("*.root"):  # other jets under the names of test files
        shutil.copy(path, test / path.name.replace("_000", "_100"))
    with pytest.raises(UsageError, match=r"are not those that .* was tested on .*measure these with files="):
        main(["evaluate", f"run={run}", f"dir={tmp_path}/data"])
