"""No jet counts twice without a word: in two files or two splits, under whatever name and in any form."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
import uproot

from jetscale.common.files import read_sealed, sha256_file, write_sealed
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.manifests import MPI_KEY, VERSION_KEY, manifest_path
from jetscale.jets.stores import opening
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.opening import open_store
from jetscale.jets.stores.packed_store import LABELS, MANIFEST, SKETCHES, WARNINGS
from jetscale.jets.stores.request import StoreRequest
from jetscale.jets.stores.sketches import shared
from tests.jets.stores import PART_BYTES, request
from tests.jets.variants import columns_of, reordered, write_root


def wanted(data: Path, split: str = "train") -> StoreRequest:
    return request(data, data / "store", "jetclass", split=split)


@pytest.fixture
def first(write: SimpleNamespace, tmp_path: Path) -> Path:
    """A train file of 60 jets."""
    path: Path = write.jetclass(tmp_path / "JetClass/HToBB_000.root", "Hbb", 60, seed=1)
    return path


def in_other_bytes(path: Path, form: str, to: Path) -> None:
    columns = columns_of(path)
    if form == "compression":
        write_root(to, columns, compression=uproot.ZSTD(5))
    elif form == "double precision":
        write_root(to, {name: ak.values_astype(values, np.float64) for name, values in columns.items()})
    elif form == "rising order":
        write_root(to, reordered(columns, ak.local_index(columns["part_px"])[:, ::-1]))
    elif form == "jets in another order":
        write_root(to, {name: values[::-1] for name, values in columns.items()})
    else:  # a third of the jets
        write_root(to, {name: values[20:40] for name, values in columns.items()})


FORMS = ["compression", "double precision", "rising order", "jets in another order", "a third of the jets"]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_jets_in_other_bytes(first: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    in_other_bytes(first, form, first.with_name("HToBB_007.root"))
    store = ensure_store(wanted(first.parents[1]), workers=1, part_bytes=PART_BYTES)
    (warning,) = store.warnings
    message = r".*HToBB_007.root: has the same jets as .*HToBB_000.root, or some of them, .*count twice"
    assert re.match(message, warning)
    assert caplog.text.count(warning) == 1
    opening._warned.cache_clear()  # another process
    open_store(wanted(first.parents[1]))
    assert caplog.text.count(warning) == 2, "each start of a run says so, also long after the packing"


@pytest.mark.parametrize("form", ["copy", "compression"])
@pytest.mark.parametrize("later", ["train", "test"])
def test_train_jets_are_no_test_jets(
    first: Path, form: str, later: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, test_file = first.parents[1], first.with_name("HToBB_100.root")
    if form == "copy":
        shutil.copy(first, test_file)
    else:
        in_other_bytes(first, form, test_file)
    earlier = "test" if later == "train" else "train"
    ensure_store(wanted(data, earlier), workers=1)
    assert not caplog.messages
    ensure_store(wanted(data, later), workers=1)
    (warning,) = caplog.messages
    assert warning == (
        f"{data}/store/jetclass_test_paper: made of HToBB_100.root, which has the same jets as "
        f"HToBB_000.root of {data}/store/jetclass_train_paper, or some of them: a loss on jets that are in "
        "train and in test means nothing; remove one of the two files, and the store that was made of it"
    )
    open_store(wanted(data, earlier))
    assert caplog.messages == [warning], "said once a process, whichever store is opened"
    opening._warned.cache_clear()  # another process
    open_store(wanted(data, earlier))
    assert caplog.messages == [warning, warning], "also by the store that was there before the other"


@pytest.mark.parametrize("removed", ["train", "test"])
def test_a_warning_ends_when_its_advice_was_followed(
    write: SimpleNamespace, first: Path, removed: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, test_file = first.parents[1], first.with_name("HToBB_100.root")
    shutil.copy(first, test_file)
    for number in (1, 101):
        write.jetclass(first.with_name(f"HToBB_{number:03d}.root"), "Hbb", 60, seed=10 + number)
    for split in ("train", "test"):
        ensure_store(wanted(data, split), workers=1)
    assert len(caplog.messages) == 1
    (first if removed == "train" else test_file).unlink()
    shutil.rmtree(wanted(data, removed).path)
    caplog.clear()
    opening._warned.cache_clear()  # another process
    for split in ("train", "test"):
        ensure_store(wanted(data, split), workers=1)
    assert not caplog.messages


def test_a_warning_that_an_earlier_version_kept_is_not_repeated(
    first: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ensure_store(wanted(first.parents[1]), workers=1)
    manifest = read_sealed(store.path / MANIFEST)
    kept = (
        "HToBB_000.root: has the same jets as HToBB_100.root, of which test.store was made: a loss on jets"
        " that are in train and in test means nothing; remove one of the two files, and its store"
    )
    write_sealed(store.path / MANIFEST, {**manifest, WARNINGS: [kept, "another warning"]})
    caplog.clear()
    opening._warned.cache_clear()  # another process
    opening.open_store(wanted(first.parents[1]))
    assert caplog.messages == ["another warning"]


def test_other_jets_are_not_taken_for_the_same(write: SimpleNamespace, first: Path) -> None:
    data = first.parents[1]
    for number in (1, 2, 100):
        write.jetclass(first.with_name(f"HToBB_{number:03d}.root"), "Hbb", 60, seed=10 + number)
    sketches = ensure_store(wanted(data), workers=1).sketches
    assert {name: len(sketch) for name, sketch in sketches.items()} == {
        f"HToBB_{number:03d}.root": 32 * 16 for number in range(3)
    }
    assert list(shared(sketches, sketches)) == []
    assert ensure_store(wanted(data, "test"), workers=1).n_jets == 60


def test_a_few_common_hashes_are_an_accident() -> None:
    words = [f"{number:016x}" for number in range(40)]
    one, alike, other = "".join(words[:32]), "".join(words[28:40]), "".join(words[29:40])
    assert list(shared({"a": one}, {"b": alike, "c": other})) == [("a", "b")]
    assert list(shared({"a": "".join(words[:2])}, {"b": one})) == [("a", "b")], "a file of two jets"


def test_a_store_of_before_is_still_read_and_compared_by_its_checksums(
    first: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = first.parents[1]
    store = ensure_store(wanted(data), workers=1)
    manifest = read_sealed(store.path / MANIFEST)
    write_sealed(store.path / MANIFEST, {k: v for k, v in manifest.items() if k not in (LABELS, SKETCHES)})
    assert open_store(wanted(data)).fingerprint == store.fingerprint
    shutil.copy(first, first.with_name("HToBB_100.root"))
    ensure_store(wanted(data, "test"), workers=1)
    (warning,) = caplog.messages
    assert "means nothing" in warning


def test_jets_of_several_origins_are_mentioned(
    write: SimpleNamespace, first: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, version in ((1, 1), (2, 2)):
        path = write.jetclass(first.with_name(f"HToBB_00{number}.root"), "Hbb", 20, seed=10 + number)
        settings = {VERSION_KEY: version}
        write_sealed(manifest_path(path), {"sha256": sha256_file(path), "settings": settings})
    ensure_store(wanted(first.parents[1]), workers=1)
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert (
        "jets of 3 origins are mixed in it, files without a manifest of the simulator (HToBB_000.root); "
        "jetscale's simulator, version 1 (HToBB_001.root); jetscale's simulator, version 2 (HToBB_002.root): "
        "what is measured on them holds for none"
    ) in record.message


def test_simulations_with_other_multiparton_interactions_are_mentioned(
    write: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, mpi in enumerate((True, False)):
        path = write.jetclass(tmp_path / f"JetClass/HToBB_00{number}.root", "Hbb", 20, seed=number)
        settings = {VERSION_KEY: 2, MPI_KEY: mpi}
        write_sealed(manifest_path(path), {"sha256": sha256_file(path), "settings": settings})
    ensure_store(wanted(tmp_path), workers=1)
    (message,) = caplog.messages
    assert (
        "jets of 2 origins are mixed in it, jetscale's simulator, version 2 (HToBB_000.root); jetscale's "
        "simulator, version 2 without multiparton interactions (HToBB_001.root): what"
    ) in message


def test_labels_in_another_order_are_other_classes(first: Path) -> None:
    """A store keeps positions of labels: a dataset whose labels were sorted anew gives them other names."""
    data = first.parents[1]
    store = ensure_store(wanted(data), workers=1)
    manifest = read_sealed(store.path / MANIFEST)
    assert manifest[LABELS] == list(DATASETS["jetclass"].labels)
    labels = manifest[LABELS]
    labels[1], labels[2] = labels[2], labels[1]
    write_sealed(store.path / MANIFEST, {**manifest, LABELS: labels})
    with pytest.raises(JetDataError, match="made with other labels: label 1 was 'Hcc', now 'Hbb'; remove it"):
        open_store(wanted(data))
