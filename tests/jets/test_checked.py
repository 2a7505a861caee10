"""Damage in a packed store, and in what an unfinished build keeps: found by name, or made anew."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jetscale.common.files import write_json
from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import PAPER
from jetscale.jets.reading.raw import JET_COLUMNS
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.checked import BLOCK
from jetscale.jets.stores.checking import check_store
from jetscale.jets.stores.opening import open_store
from jetscale.jets.stores.packed_jets import PackedJets, packed_schema
from jetscale.jets.stores.packed_store import Part, Store, write_manifest
from jetscale.jets.stores.passes import describe_part, part_name
from jetscale.jets.stores.request import StoreRequest
from tests.jets.stores import PART_BYTES, content, request


def flip(path: Path, bit: int) -> None:
    changed = bytearray(path.read_bytes())
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)


@pytest.fixture(scope="module")
def whole(jetclass2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StoreRequest:
    wanted = request(jetclass2_dir, tmp_path_factory.mktemp("whole"))
    ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
    return wanted


def epoch(wanted: StoreRequest) -> None:
    """Every jet once, as training has them."""
    settings = DataSettings(dir=str(wanted.directory), store=str(wanted.store_dir))
    data = JetDataModule(settings, "jetclass2", None, 64, open_store(wanted).n_jets // 64, seed=1)
    data.setup()
    for _ in data.train_dataloader():
        pass


def test_any_flipped_bit_stops_an_epoch_and_is_found_by_a_check(whole: StoreRequest, tmp_path: Path) -> None:
    """Forty at random places, and twenty in what Arrow itself reads, on which it would crash."""
    epoch(whole)
    rng = random.Random(3)
    entries = open_store(whole).entries
    framing = [(e["file"], b) for e in entries for b in range(8 * e["bodies"][0][0])]
    framing += [(e["file"], b) for e in entries for b in range(8 * e["bodies"][0][1], 8 * e["size"])]
    chosen = rng.sample(framing, 20)
    for path in rng.choices(sorted(whole.path.iterdir()), k=40):
        chosen.append((path.name, rng.randrange(8 * path.stat().st_size)))
    damaged = request(whole.directory, tmp_path)
    shutil.copytree(whole.path, damaged.path)
    for name, bit in chosen:
        flip(damaged.path / name, bit)
        with pytest.raises(JetDataError, match=name) as error:
            epoch(damaged)
        assert f"remove {damaged.path} to have it made again" in str(error.value)
        _, problems = check_store(damaged, lambda *_: None)
        assert len(problems) == 1
        assert name in problems[0]
        flip(damaged.path / name, bit)
    epoch(damaged)


@pytest.fixture
def large(tmp_path: Path) -> Store:
    """A store of one part that has many blocks."""
    n_jets = 65_536
    labels = np.repeat(np.arange(4), n_jets // 4).astype(np.uint8)
    jets = PackedJets(
        offsets=np.arange(0, 3 * n_jets + 1, 3),
        x_TF=np.random.default_rng(1).normal(size=(3 * n_jets, 8)).astype(np.float16),
        pid_T=np.ones(3 * n_jets, np.uint8),
        labels=labels,
        jets={name: np.ones(n_jets, np.float32) for name in JET_COLUMNS},
    )
    schema = packed_schema(PAPER, JET_COLUMNS, {"rows_by_label": pa.uint32()}, {})
    with pa.ipc.new_file(str(tmp_path / part_name(0)), schema) as writer:
        by_label = np.argsort(labels, kind="stable").astype(np.uint32)
        writer.write_batch(jets.record_batch(schema, {"rows_by_label": by_label}))
    write_manifest(tmp_path, {"n_labels": 188}, [describe_part(tmp_path / part_name(0), 188)])
    return Store.open(tmp_path)


def place_of_inputs(path: Path) -> int:
    """First byte of the inputs in a part."""
    with pa.memory_map(str(path)) as stream:
        whole = stream.read_buffer()
        x = pa.ipc.open_file(whole).get_batch(0).column("x").values.values.buffers()[1]
        return int(x.address - whole.address)


def test_a_few_jets_cost_a_few_blocks(large: Store) -> None:
    """Damage is not noticed, since it is not used, two blocks from the jets that are."""
    path = large.path / part_name(0)
    at = place_of_inputs(path)
    flip(path, 8 * (at + 3 * BLOCK))
    part = large.part(0)
    rows = np.array([0, 10, BLOCK // 48 - 1])
    x_TF, _ = part.constituents(*part.bounds(rows))
    assert np.isfinite(x_TF[:3]).all()
    with pytest.raises(
        JetDataError, match=rf"bytes {(at // BLOCK + 3) * BLOCK} to {(at // BLOCK + 4) * BLOCK}"
    ):
        part.constituents(*part.bounds(np.array([3 * BLOCK // 48])))
    with pytest.raises(JetDataError, match="damaged, checksum"):
        _ = part.jets


@pytest.mark.parametrize("use", ["labels", "column", "bounds", "constituents", "rows_by_label"])
def test_every_column_is_verified(large: Store, use: str) -> None:
    path, rows = large.path / part_name(0), np.arange(65_536)
    jets = large.part(0).jets
    column = {
        "labels": jets.labels,
        "column": jets.jets["jet_tau2"],
        "bounds": jets.offsets,
        "constituents": jets.pid_T,
        "rows_by_label": large.part(0).rows_by_label,
    }[use]
    assert column is not None
    start = column.__array_interface__["data"][0] - jets.labels.__array_interface__["data"][0]
    first = describe_part(path, 188)["bodies"][0][0]  # labels are the first column
    flip(path, 8 * (first + start + column.nbytes // 2))
    uses: dict[str, Callable[[Part], object]] = {
        "labels": lambda part: part.labels(rows),
        "column": lambda part: part.column("jet_tau2", rows),
        "bounds": lambda part: part.bounds(rows),
        "constituents": lambda part: part.constituents(3 * rows, 3 * rows + 3),
        "rows_by_label": lambda part: part.rows_by_label,
    }
    with pytest.raises(JetDataError, match=r"part_00000.arrow: damaged, checksum"):
        uses[use](Store.open(large.path).part(0))


def test_a_part_cut_off_while_it_is_mapped_is_an_error_and_no_signal(large: Store) -> None:
    path = large.path / part_name(0)
    part = large.part(0)
    with path.open("r+b") as stream:
        stream.truncate(4096)
    with pytest.raises(JetDataError, match=r"part_00000.arrow: damaged, checksum"):
        _ = part.jets
    with pytest.raises(JetDataError, match="has 4096 bytes instead of"):
        Store.read_manifest(large.path).part(0)
    path.unlink()
    with pytest.raises(JetDataError, match=r"part_00000.arrow: cannot be read \(No such file"):
        _ = part.jets


def test_a_manifest_that_contradicts_its_part(large: Store) -> None:
    """Sealed as it should be, but of other jets: not damage but a mistake of whoever wrote it."""
    (entry,) = large.entries
    write_manifest(large.path, large.definition, [{**entry, "n_jets": 65_535}])
    with pytest.raises(JetDataError, match=r"65536 jets .*store.json says 65535 jets"):
        Store.open(large.path).part(0)


def test_a_store_of_the_format_before_is_named_as_such(whole: StoreRequest, tmp_path: Path) -> None:
    old = request(whole.directory, tmp_path)
    shutil.copytree(whole.path, old.path)
    manifest = json.loads((old.path / "store.json").read_text())
    del manifest["checksum"]
    manifest["definition"]["format"] = 2
    write_json(old.path / "store.json", manifest)
    with pytest.raises(JetDataError, match=r"made with another format: 2, now 3; remove .* made again"):
        open_store(old)


def interrupted(directory: Path, store_dir: Path, done: float) -> Path:
    """Folder of a build that ended when its second pass was to begin (0), or had ended (1)."""

    def stop(what: str, at: int, total: int) -> None:
        if what == "mixing" and at >= done * total:
            raise InterruptedError

    wanted = request(directory, store_dir)
    with pytest.raises(JetDataError, match="cannot be written"):  # InterruptedError is an OSError
        ensure_store(wanted, workers=1, part_bytes=PART_BYTES, progress=stop)
    return wanted.store_dir / f".{wanted.path.name}.building"


@pytest.mark.parametrize("done", [0.0, 1.0])
def test_a_bit_flipped_while_a_build_was_interrupted(
    whole: StoreRequest, tmp_path: Path, done: float
) -> None:
    """In any file: what is damaged is made anew, and the store has the same bytes."""
    staging = interrupted(whole.directory, tmp_path, done)
    shutil.copytree(staging, tmp_path / "kept")
    files = [path.relative_to(staging) for path in sorted(staging.rglob("*")) if path.is_file()]
    assert {"plan.json", "spill", "records"} <= {file.parts[0] for file in files}
    assert any(file.name.startswith("part_") for file in files) == bool(done)
    rng = random.Random(5)
    for file in rng.sample(files, 8):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        wanted = request(whole.directory, tmp_path / "store")
        again = wanted.store_dir / staging.name
        shutil.copytree(tmp_path / "kept", again)
        flip(again / file, rng.randrange(8 * (again / file).stat().st_size))
        ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
        assert content(wanted.path) == content(whole.path), file


def test_a_spill_file_damaged_before_it_is_read_back(jetclass2_dir: Path, tmp_path: Path) -> None:
    wanted = request(jetclass2_dir, tmp_path)
    spill = wanted.store_dir / f".{wanted.path.name}.building" / "spill" / "QCD_0001.parquet.arrow"

    def damage(what: str, at: int, _: int) -> None:
        if what == "mixing" and at == 0:
            flip(spill, 8 * 20_000)

    with pytest.raises(JetDataError, match=r"QCD_0001.parquet.arrow: damaged, checksum .* start again"):
        ensure_store(wanted, workers=1, part_bytes=PART_BYTES, progress=damage)
    assert not wanted.path.exists()
    ensure_store(wanted, workers=1, part_bytes=PART_BYTES)


def test_a_check_compares_labels_with_the_manifest(whole: StoreRequest, tmp_path: Path) -> None:
    """Sealed as it should be, with one jet counted under another label: the order would be another."""
    wrong = request(whole.directory, tmp_path)
    shutil.copytree(whole.path, wrong.path)
    store = open_store(wrong)
    counts = store.entries[0]["label_counts"]
    counts[0], counts[1] = counts[0] - 1, counts[1] + 1
    write_manifest(wrong.path, store.definition, store.entries)
    _, problems = check_store(wrong, lambda *_: None)
    assert len(problems) == 1
    assert "part_00000.arrow: its jets have other labels than store.json says; remove" in problems[0]
