from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jetscale.common.files import checksum_file
from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import jet_file
from jetscale.prepare.__main__ import main
from tests.warm import WarmServer


@pytest.mark.parametrize("name", ["a[red]b", "c[/x]d", "e:ok:f", "g h,i=j"])
def test_names_are_printed_as_they_are(
    write: SimpleNamespace, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write.jetclass(tmp_path / name / "JetClass/HToBB_000.root", "Hbb", 20, seed=1)
    main([f"dir={tmp_path}/{name}", "dataset=jetclass"])
    assert f"{tmp_path}/{name}/store/jetclass_train_paper: ready, 20 jets" in capsys.readouterr().err
    part = next((tmp_path / name / "store").rglob("part_*"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(UsageError, match="1 damaged files, named above"):
        main([f"dir={tmp_path}/{name}", "dataset=jetclass", "--check"])
    assert str(part) in capsys.readouterr().err


def test_everything_that_is_there(
    fill: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    fill.jetclass2(tmp_path, n_jets=5, files=1)
    main([f"dir={tmp_path}", "workers=1"])
    stores = {path.name for path in (tmp_path / "store").iterdir() if path.is_dir()}
    assert stores == {
        f"{dataset}_{split}_paper" for dataset in ("jetclass", "jetclass2") for split in ("train", "test")
    }
    report = capsys.readouterr().err
    assert "jetclass_train_paper: ready, 95 jets" in report
    assert "labels have no jets" not in report
    main([f"dir={tmp_path}", "check=true"])
    assert capsys.readouterr().err.count("checksums good") == 4


def flip_a_bit(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


def test_check_names_every_damaged_file(fill: SimpleNamespace, warm: WarmServer, tmp_path: Path) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    main([f"dir={tmp_path}", "workers=1"])
    words = [f"dir={tmp_path}", "--check"]
    assert warm.run("jetscale.prepare", words, tmp_path).returncode == 0
    source = {
        name: tmp_path / jet_file("jetclass", name, 0).path for name in ("HToBB", "HToCC", "TTBar", "HToGG")
    }
    flip_a_bit(source["HToBB"])
    flip_a_bit(source["HToCC"])
    source["TTBar"].unlink()
    source["HToGG"].write_bytes(b"root")
    shutil.copy(source["HToCC"], source["HToCC"].with_name("HToCC_001.root"))
    store = tmp_path / "store" / "jetclass_train_paper"
    flip_a_bit(store / "part_00000.arrow")
    (tmp_path / "store" / "jetclass_test_paper" / "part_00000.arrow").unlink()
    run = warm.run("jetscale.prepare", words, tmp_path)
    assert run.returncode == 2
    found = sorted(line for line in run.stderr.splitlines() if str(tmp_path) in line)
    now = checksum_file(source["HToBB"])
    assert len(found) == 7
    for path, what in (
        ("part_00000.arrow", "the part is missing; remove"),
        ("part_00000.arrow", "damaged, checksum"),
        ("HToBB_000.root", f"damaged, checksum {now} instead of"),
        ("HToCC_000.root", "damaged, checksum"),
        ("HToCC_001.root", f"is no source of {store}"),
        ("TTBar_000.root", "the source file is missing"),
        ("HToGG_000.root", "has 4 bytes instead of"),
    ):
        assert any(f"{path}: {what}" in line for line in found), (path, what)
    assert "7 damaged files, named above" in run.stderr


def test_check_goes_on_after_a_damaged_manifest(
    fill: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    main([f"dir={tmp_path}", "workers=1"])
    (tmp_path / "store" / "jetclass_test_paper" / "store.json").write_text("{")
    flip_a_bit(tmp_path / "store" / "jetclass_train_paper" / "part_00000.arrow")
    with pytest.raises(UsageError, match="2 damaged files"):
        main([f"dir={tmp_path}", "--check"])
    report = capsys.readouterr().err
    assert "store.json: damaged" in report
    assert "part_00000.arrow: damaged, checksum" in report


@pytest.mark.parametrize("words", [[], ["dataset=jetclass", "split=train"]])
def test_check_before_there_is_a_store_says_so(
    fill: SimpleNamespace, tmp_path: Path, words: list[str]
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    stores = [f"{tmp_path}/store/jetclass_train_paper"]
    stores += [] if words else [f"{tmp_path}/store/jetclass_test_paper"]
    with pytest.raises(UsageError) as error:
        main([f"dir={tmp_path}", "check=true", *words])
    said = f"{', '.join(stores)}: there is no store yet to check; leave check out, and it is made"
    assert str(error.value) == said
    assert not (tmp_path / "store").exists()


def test_check_without_files_says_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no train jets of jetclass2: .* The public files come from"):
        main([f"dir={tmp_path}", "check=true", "dataset=jetclass2"])


def test_unusable_files_of_all_splits_and_datasets_are_named_at_once(
    fill: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    fill.jetclass2(tmp_path, n_jets=5, files=1)
    bad = [tmp_path / jet_file("jetclass", "ZToQQ", number).path for number in (0, 100)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:-50])
    bad.append(tmp_path / jet_file("jetclass2", "QCD", 350).path)
    bad[-1].write_bytes(bad[-1].read_bytes()[:-50])
    with pytest.raises(UsageError) as error:
        main([f"dir={tmp_path}", "workers=1"])
    for path, line in zip(bad, str(error.value).splitlines(), strict=True):
        assert line.startswith(f"{path}: ")
    report = capsys.readouterr().err
    assert "jetclass2_train_paper: ready" in report
    assert report.count("ready") == 1


def test_a_badly_named_file_stops_its_own_dataset_alone_and_is_named_once(
    fill: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    fill.jetclass2(tmp_path, n_jets=5, files=1)
    bad = tmp_path / "JetClass/HToBB_00.root"
    bad.write_bytes(b"root")
    with pytest.raises(UsageError) as error:
        main([f"dir={tmp_path}", "workers=1"])
    assert str(error.value).count(f"{bad}: ") == 1
    report = capsys.readouterr().err
    assert report.count("ready") == 2
    assert "jetclass2_test_paper: ready" in report


def test_other_choices(fill: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass2(tmp_path, n_jets=5, files=1)
    main([f"dir={tmp_path}", f"store={tmp_path}/packed", "features=part17", "selection=sophon", "split=test"])
    assert (tmp_path / "packed" / "jetclass2_test_part17_sophon" / "store.json").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "dataset=jetclass3",
            "must be one of jetclass, jetclass2, top_tagging, all, or one that --trust MODULE",
        ),
        ("split=training", "split=training: must be one of train, val, test, all"),
        ("features=all", "features=all: must be one of paper, part17"),
        ("selection=cms", "selection=cms: must be one of none, sophon"),
        ("worker=2", "unknown key 'worker'; did you mean workers"),
    ],
)
def test_bad_choices(fill: SimpleNamespace, tmp_path: Path, argument: str, message: str) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    with pytest.raises(UsageError, match=message):
        main([f"dir={tmp_path}", argument])


def test_command_without_data_says_what_to_do(warm: WarmServer, tmp_path: Path) -> None:
    run = warm.run("jetscale.prepare", [], tmp_path)
    assert run.returncode == 2
    for part in (
        "Zenodo record 6619768",
        "jet-universe/jetclass2",
        "python -m jetscale.simulate dataset=jetclass ",
    ):
        assert part in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


def test_readers_and_labels_import_little() -> None:
    modules = (
        "datasets.files", "features", "ordering.compositions", "stores.packed_store", "stores.building",
        "ordering.positions", "stream", "evaluation",
    )  # fmt: skip
    code = (
        "import sys; import jetscale.jets.datasets.base as base; base.all_datasets(); "
        "import jetscale.jets.source; assert 'torch' not in sys.modules; "
        f"import {', '.join(f'jetscale.jets.{name}' for name in modules)}; "
        "assert not {'lightning', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_without_jets_are_named(
    fill: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    (tmp_path / jet_file("jetclass", "HToBB", 0).path).unlink()
    main([f"dir={tmp_path}", "split=train", "workers=1"])
    assert "1 labels have no jets: Hbb" in capsys.readouterr().err
