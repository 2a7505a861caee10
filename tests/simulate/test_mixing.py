"""Jets of two simulators, or real and simulated ones, never get into one dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import jet_file
from jetscale.simulate import SIMULATOR_VERSION
from jetscale.simulate.output_files import Target, read_manifest
from jetscale.simulate.production import simulate


def target(out: Path, process: str = "WToQQ") -> Target:
    return Target(out, jet_file("jetclass", process, 0), 5, seed=0, mpi=False)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    simulate([target(tmp_path)], 1, tmp_path)
    return tmp_path


def as_version_1_wrote_it(out: Path) -> None:
    path = target(out).manifest_path
    manifest = json.loads(path.read_text())
    manifest["settings"]["physics"] = 1
    del manifest["settings"]["simulator version"], manifest["checksum"]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("process", ["WToQQ", "ZToQQ"])
def test_files_of_another_version_stop_the_simulation(made: Path, process: str) -> None:
    """Whether the very file is asked for again or another one of the same dataset."""
    as_version_1_wrote_it(made)
    message = (
        rf"WToQQ_000.root was made with other settings \(simulator version: 1 there, {SIMULATOR_VERSION} "
        r"asked for\); choose another out=, or delete it"
    )
    with pytest.raises(UsageError, match=message):
        simulate([target(made, process)], 1, made)
    assert not target(made, "ZToQQ").path.exists()


def test_a_real_file_under_another_name_stops_the_simulation(made: Path) -> None:
    real = made / jet_file("jetclass", "HToBB", 7).path
    real.write_bytes(b"published")
    with pytest.raises(UsageError, match=r"HToBB_007.root was not made by this simulator.*must not mix"):
        simulate([target(made, "ZToQQ")], 1, made)


def test_a_linked_folder_is_looked_into(tmp_path: Path) -> None:
    """Large data often lie on another disk; a search that does not follow links would see none of them."""
    real = tmp_path / "disk/train_100M"
    real.mkdir(parents=True)
    (real / "HToBB_042.root").write_bytes(b"root of somebody else")
    folder = tmp_path / "data/JetClass/Pythia"
    folder.mkdir(parents=True)
    (folder / "train_100M").symlink_to(real)
    with pytest.raises(UsageError, match=r"HToBB_042.root was not made by this simulator"):
        simulate([target(tmp_path / "data")], 1, tmp_path / "data")
    assert [path.name for path in real.iterdir()] == ["HToBB_042.root"]


def test_hidden_leftovers_and_the_other_dataset_do_not_matter(made: Path) -> None:
    """A killed simulation leaves an unfinished file; JetClass-II beside it is another dataset."""
    (target(made).path.parent / ".WToQQ_001.123.part.root").write_bytes(b"unfinished")
    other = made / jet_file("jetclass2", "QCD", 0).path
    other.parent.mkdir(parents=True)
    other.write_bytes(b"published")
    assert simulate([target(made)], 1, made) == []


def test_unfinished_parts_of_another_version_are_not_continued(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = target(made).parts
    monkeypatch.setattr("jetscale.simulate.output_files.SIMULATOR_VERSION", SIMULATOR_VERSION + 1)
    assert target(made).parts != here


def test_the_version_has_one_name_whatever_wrote_it(made: Path) -> None:
    as_version_1_wrote_it(made)
    settings = read_manifest(target(made).manifest_path)["settings"]
    assert settings["simulator version"] == 1
    assert "physics" not in settings
