from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from jetscale import __version__
from jetscale.common.files import checksum_file, read_sealed
from jetscale.jets.datasets.base import jet_file
from jetscale.jets.datasets.files import JetFileReader
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import FEATURE_SETS
from jetscale.jets.stores import building, passes
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.opening import open_store
from jetscale.jets.stores.packed_jets import pack, view
from jetscale.jets.stores.request import StoreRequest
from tests.jets.stores import PART_BYTES, content, group_members, open_jets, request, start_build
from tests.warm import WarmProcess, WarmServer


def rows(jets) -> set[bytes]:
    """Every jet as one string of its label, kinematics and constituents."""
    return {
        jets.labels[b].tobytes()
        + b"".join(values[b].tobytes() for values in jets.jets.values())
        + jets.x_TF[jets.offsets[b] : jets.offsets[b + 1]].tobytes()
        + (b"" if jets.pid_T is None else jets.pid_T[jets.offsets[b] : jets.offsets[b + 1]].tobytes())
        for b in range(jets.n_jets)
    }


@pytest.mark.parametrize("dataset", ["jetclass", "jetclass2"])
@pytest.mark.parametrize("features", ["paper", "part17"])
def test_a_store_holds_what_the_files_hold(
    jetclass_dir: Path, jetclass2_dir: Path, tmp_path: Path, dataset: str, features: str
) -> None:
    directory = jetclass_dir if dataset == "jetclass" else jetclass2_dir
    wanted = request(directory, tmp_path, dataset, features=features)
    store = ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
    chosen = FEATURE_SETS[features]
    read: set[bytes] = set()
    n_jets = 0
    for source in wanted.sources():
        with open_jets(source.path) as file:
            for raw in file.jets(chosen.reads):
                read |= rows(pack(raw, chosen))
                n_jets += raw.n_jets
    stored = [store.part(number).jets for number in range(len(store.entries))]
    assert len(stored) > 1
    assert store.n_jets == sum(jets.n_jets for jets in stored) == n_jets
    assert set.union(*(rows(jets) for jets in stored)) == read
    assert len(read) == n_jets


def test_real_jets(real_jets: Path, tmp_path: Path) -> None:
    target = tmp_path / jet_file("jetclass2", "QCD", 0).path
    target.parent.mkdir(parents=True)
    shutil.copy(real_jets, target)
    store = ensure_store(request(tmp_path, tmp_path / "store"), workers=1)
    with open_jets(real_jets) as file:
        (raw,) = file.jets(FEATURE_SETS["paper"].reads)
    assert rows(store.part(0).jets) == rows(pack(raw, FEATURE_SETS["paper"]))
    assert store.label_counts.tolist() == np.bincount(raw.labels, minlength=188).tolist()


def test_jets_of_all_files_are_mixed(jetclass_dir: Path, tmp_path: Path) -> None:
    store = ensure_store(request(jetclass_dir, tmp_path, "jetclass"), workers=1, part_bytes=PART_BYTES)
    for number in range(len(store.entries)):
        labels = store.part(number).jets.labels
        assert len(set(labels[: len(labels) // 2].tolist())) >= 9
        same = float(np.mean(labels[1:] == labels[:-1]))
        assert same < 0.25, "a tenth of neighbours are of one class by chance"


def test_rows_by_label(jetclass2_dir: Path, tmp_path: Path) -> None:
    store = ensure_store(request(jetclass2_dir, tmp_path), workers=1, part_bytes=PART_BYTES)
    for number in range(len(store.entries)):
        part = store.part(number)
        assert sorted(part.rows_by_label.tolist()) == list(range(part.jets.n_jets))
        assert (np.diff(part.jets.labels[part.rows_by_label].astype(int)) >= 0).all()
        counts = np.bincount(part.jets.labels, minlength=188)
        assert np.array_equal(store.label_counts_PL[number], counts)


def test_any_arrow_reader_understands_a_part(jetclass_dir: Path, tmp_path: Path) -> None:
    wanted = request(jetclass_dir, tmp_path, "jetclass")
    store = ensure_store(wanted, workers=1)
    table = pa.ipc.open_file(wanted.path / store.entries[0]["file"]).read_all()
    assert table["x"].type == pa.list_(
        pa.field("item", pa.list_(pa.field("item", pa.float16(), nullable=False), 8), nullable=False)
    )
    metadata = table.schema.metadata
    definition = json.loads(metadata[b"jetscale.definition"])
    assert definition == store.definition
    assert metadata[b"jetscale.version"].decode() == __version__
    assert metadata[b"jetscale.fingerprint"].decode() == store.fingerprint
    for source, file in zip(definition["sources"], wanted.sources(), strict=True):
        assert source == {"name": file.name, "size": file.size, "xxh3_128": checksum_file(file.path)}


@pytest.mark.slow
def test_same_bytes_whatever_the_workers(jetclass2_dir: Path, tmp_path: Path) -> None:
    one = ensure_store(request(jetclass2_dir, tmp_path / "one"), workers=1, part_bytes=PART_BYTES)
    two = ensure_store(request(jetclass2_dir, tmp_path / "two"), workers=2, part_bytes=PART_BYTES)
    assert content(one.path) == content(two.path)


def test_same_bytes_whatever_the_folder(jetclass2_dir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "JetClassII" / "downloads"
    elsewhere.mkdir(parents=True)
    for file in sorted((jetclass2_dir / "JetClassII").rglob("*.parquet"), reverse=True):
        shutil.copy(file, elsewhere / file.name)
    one = ensure_store(request(jetclass2_dir, tmp_path / "one"), workers=1)
    two = ensure_store(request(tmp_path, tmp_path / "two"), workers=1)
    assert content(one.path) == content(two.path)


def test_sophon_selection(jetclass2_dir: Path, real_jets: Path, tmp_path: Path) -> None:
    target = tmp_path / jet_file("jetclass2", "QCD", 0).path
    target.parent.mkdir(parents=True)
    shutil.copy(real_jets, target)
    store = ensure_store(request(tmp_path, tmp_path / "store", selection="sophon"), workers=1)
    by_bucket = [store.label_counts[low:high].sum() for low, high in ((0, 15), (15, 161), (161, 188))]
    assert by_bucket == [14, 63, 8], "of 15, 64 and 21 jets (published selection, checked independently)"
    assert ensure_store(request(tmp_path, tmp_path / "store"), workers=1).n_jets == 100


def test_nothing_selected(write: SimpleNamespace, tmp_path: Path) -> None:
    low = np.full(5, 10.0, np.float32)
    write.jetclass2(tmp_path / "JetClassII/QCD_0000.parquet", [161] * 5, seed=1, jet_sdmass=pa.array(low))
    with pytest.raises(JetDataError, match="no jet of 1 files passes selection=sophon"):
        ensure_store(request(tmp_path, tmp_path / "store", selection="sophon"), workers=1)


def test_a_whole_store_is_reused(jetclass_dir: Path, tmp_path: Path) -> None:
    wanted = request(jetclass_dir, tmp_path, "jetclass")
    ensure_store(wanted, workers=1)
    before = {file: file.stat().st_mtime_ns for file in wanted.path.iterdir()}
    ensure_store(wanted, workers=1)
    assert {file: file.stat().st_mtime_ns for file in wanted.path.iterdir()} == before


def test_a_store_stands_for_itself_without_its_files(fill: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    wanted = request(tmp_path, tmp_path / "store", "jetclass")
    made = ensure_store(wanted, workers=1)
    shutil.rmtree(tmp_path / "JetClass")
    assert ensure_store(wanted).fingerprint == made.fingerprint


def test_stale_store(fill: SimpleNamespace, write: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    wanted = request(tmp_path, tmp_path / "store", "jetclass")
    ensure_store(wanted, workers=1)
    write.jetclass(tmp_path / "JetClass/HToBB_001.root", "Hbb", 5, seed=1)
    with pytest.raises(
        JetDataError, match=r"made from other files.*HToBB_001.root has \d+ bytes now and had no"
    ):
        ensure_store(wanted)
    (tmp_path / "JetClass/HToBB_001.root").unlink()
    ensure_store(wanted)
    write.jetclass(tmp_path / jet_file("jetclass", "HToBB", 0).path, "Hbb", 50, seed=1)
    with pytest.raises(JetDataError, match=r"HToBB_000.root has \d+ bytes now and had \d+"):
        ensure_store(wanted)


def test_foreign_store(jetclass_dir: Path, jetclass2_dir: Path, tmp_path: Path) -> None:
    made = ensure_store(request(jetclass_dir, tmp_path, "jetclass"), workers=1)
    wanted = request(jetclass2_dir, tmp_path)
    shutil.copytree(made.path, wanted.path)
    with pytest.raises(JetDataError, match="made with another dataset, n_labels"):
        ensure_store(wanted)


def spoil_part(path: Path) -> None:
    part = next(path.glob("part_*"))
    part.write_bytes(part.read_bytes()[:-100])


def spoil_manifest(path: Path) -> None:
    manifest = json.loads((path / "store.json").read_text())
    manifest["definition"]["sources"][0]["size"] += 1
    (path / "store.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil_part, r"part_00000.arrow: the part has \d+ bytes instead of \d+"),
        (lambda path: next(path.glob("part_*")).unlink(), "part_00000.arrow: the part is missing"),
        (lambda path: (path / "store.json").unlink(), "not a packed store, it has no store.json"),
        (lambda path: (path / "store.json").write_text("{"), "store.json: damaged"),
        (lambda path: (path / "store.json").write_text("{}"), "store.json: damaged"),
        (spoil_manifest, "store.json: damaged, its content does not fit its checksum"),
    ],
)
def test_damaged_store(
    fill: SimpleNamespace, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    wanted = request(tmp_path, tmp_path / "store", "jetclass")
    ensure_store(wanted, workers=1)
    damage(wanted.path)
    with pytest.raises(JetDataError, match=message):
        open_store(wanted)


def test_no_files(tmp_path: Path) -> None:
    for dataset, origin in (("jetclass", "Zenodo record 6619768"), ("jetclass2", "jet-universe/jetclass2")):
        with pytest.raises(JetDataError) as error:
            ensure_store(request(tmp_path, tmp_path / "store", dataset))
        for part in (f"no train jets of {dataset}", str(tmp_path), origin, "python -m jetscale.simulate"):
            assert part in str(error.value)
        assert not (tmp_path / "store").exists()


def test_bad_file_leaves_no_store(fill: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    bad = tmp_path / jet_file("jetclass", "TTBar", 0).path
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    wanted = request(tmp_path, tmp_path / "store", "jetclass")
    with pytest.raises(JetDataError, match=r"TTBar_000.root"):
        ensure_store(wanted, workers=1)
    assert not wanted.path.exists()
    bad.write_bytes(good)
    assert ensure_store(wanted, workers=1).n_jets == sum(5 + index for index in range(10))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("JetClass/HToBB_00.root", "HToBB_00.root: not named"),
        ("JetClass/HToXX_000.root", "no process 'HToXX'"),
        ("JetClass/copy/HToBB_000.root", "duplicated file, also at"),
        ("JetClass/HToBB_001.root", "duplicated file, the same bytes as .*HToBB_000.root"),
        ("JetClass/HToCC_001.root", r"HToCC_001.root: the file is empty \(0 bytes\)"),
    ],
)
def test_files_that_do_not_belong(fill: SimpleNamespace, tmp_path: Path, name: str, message: str) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if "HToCC" in name:
        (tmp_path / name).touch()
    else:
        shutil.copy(tmp_path / jet_file("jetclass", "HToBB", 0).path, tmp_path / name)
    with pytest.raises(JetDataError, match=message):
        ensure_store(request(tmp_path, tmp_path / "store", "jetclass"), workers=1)


def test_what_an_unfinished_simulation_left_is_no_source(fill: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    (tmp_path / "JetClass" / ".HToBB_001.123.part.root").write_text("half a file")
    ensure_store(request(tmp_path, tmp_path / "store", "jetclass"), workers=1)


def kill_when(build: WarmProcess, ready: Callable[[], bool]) -> None:
    while not ready():
        assert build.poll() is None, "the build ended before it could be killed"
        time.sleep(0.001)
    build.send_signal(signal.SIGKILL)
    build.wait()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["first spill", "third spill", "first part", "fourth part"])
def test_killed_and_started_again(jetclass2_dir: Path, warm: WarmServer, tmp_path: Path, when: str) -> None:
    undisturbed = ensure_store(request(jetclass2_dir, tmp_path / "whole"), workers=1, part_bytes=PART_BYTES)
    wanted = request(jetclass2_dir, tmp_path / "store")
    staging = wanted.store_dir / f".{wanted.path.name}.building"
    count = {"first": 1, "third": 3, "fourth": 4}[when.split()[0]]
    pattern = "spill/[!.]*" if "spill" in when else "part_*"
    build = start_build(warm, tmp_path / "build.py", jetclass2_dir, wanted.store_dir, workers=1)
    kill_when(build, lambda: len(list(staging.glob(pattern))) >= count)
    assert not wanted.path.exists()
    kept = {file: file.stat().st_mtime_ns for file in staging.glob("spill/[!.]*")}
    assert kept
    store = ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
    assert content(store.path) == content(undisturbed.path)
    assert not staging.exists()


@pytest.mark.slow
def test_workers_die_with_a_killed_parent(jetclass2_dir: Path, warm: WarmServer, tmp_path: Path) -> None:
    wanted = request(jetclass2_dir, tmp_path / "store")
    staging = wanted.store_dir / f".{wanted.path.name}.building"
    build = start_build(warm, tmp_path / "build.py", jetclass2_dir, wanted.store_dir, workers=2)
    kill_when(build, lambda: bool(list(staging.glob("spill/*"))))
    deadline = time.monotonic() + 20
    while group_members(build.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group_members(build.pid)
    undisturbed = ensure_store(request(jetclass2_dir, tmp_path / "whole"), workers=1, part_bytes=PART_BYTES)
    assert content(ensure_store(wanted, workers=1, part_bytes=PART_BYTES).path) == content(undisturbed.path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the source files that builds in this process read, as they do."""
    names: list[str] = []
    write_spill = passes.write_spill

    def noted(job: passes.SpillJob) -> None:
        names.append(job.source.name)
        write_spill(job)

    monkeypatch.setattr(passes, "write_spill", noted)
    return names


def from_scratch(wanted: StoreRequest, store_dir: Path, part_bytes: int) -> dict[str, str]:
    fresh = replace(wanted, store_dir=store_dir)
    return content(ensure_store(fresh, workers=1, part_bytes=part_bytes).path)


def parts_planned(wanted: StoreRequest) -> int:
    staging = wanted.store_dir / f".{wanted.path.name}.building"
    return int(read_sealed(staging / building.PLAN)[passes.N_PARTS])


@pytest.mark.parametrize("selection", ["none", "sophon"])
@pytest.mark.parametrize(("part_bytes", "as_many_parts"), [(1 << 30, True), (150_000, False)])
def test_after_a_repair_only_that_file_is_read(
    fill: SimpleNamespace,
    read: list[str],
    tmp_path: Path,
    part_bytes: int,
    as_many_parts: bool,
    selection: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the store has another number of parts, now that the file has its whole size."""
    monkeypatch.setattr(JetFileReader.jets, "__defaults__", (0, None, 50))
    monkeypatch.setattr(passes, "GROUP", 100)  # several record batches a file
    fill.jetclass2(tmp_path)
    bad = tmp_path / jet_file("jetclass2", "QCD", 1).path
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    wanted = request(tmp_path, tmp_path / "store", selection=selection)
    with pytest.raises(JetDataError, match=r"QCD_0001\.parquet"):
        ensure_store(wanted, workers=1, part_bytes=part_bytes)
    assert len(read) == 6
    planned = parts_planned(wanted)
    read.clear()
    bad.write_bytes(good)
    store = ensure_store(wanted, workers=1, part_bytes=part_bytes)
    assert read == ["QCD_0001.parquet"]
    assert (planned == store.definition[passes.N_PARTS]) == as_many_parts
    assert content(store.path) == from_scratch(wanted, tmp_path / "fresh", part_bytes)


@pytest.mark.parametrize("change", ["removed", "added"])
def test_other_files_after_an_interruption(
    fill: SimpleNamespace,
    write: SimpleNamespace,
    read: list[str],
    tmp_path: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parts are made of all files and made again; what the other files became is kept."""
    fill.jetclass2(tmp_path)
    wanted = request(tmp_path, tmp_path / "store")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
    assert list((wanted.store_dir / f".{wanted.path.name}.building").glob("part_*"))
    read.clear()
    if change == "removed":
        (tmp_path / jet_file("jetclass2", "QCD", 1).path).unlink()
    else:
        write.jetclass2(tmp_path / "JetClassII/QCD_0007.parquet", [170] * 250, seed=77)
    store = ensure_store(wanted, workers=1, part_bytes=PART_BYTES)
    assert read == ([] if change == "removed" else ["QCD_0007.parquet"])
    assert content(store.path) == from_scratch(wanted, tmp_path / "fresh", PART_BYTES)


def test_leftovers_of_another_build_are_discarded(
    fill: SimpleNamespace, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    wanted = request(tmp_path, tmp_path / "store", "jetclass")
    bad = tmp_path / "JetClass/TTBar_001.root"
    bad.write_text("not root")
    with monkeypatch.context() as patch:
        patch.setattr(building, "__version__", "0.0.1")
        with pytest.raises(JetDataError, match=r"TTBar_001\.root"):
            ensure_store(wanted, workers=1)
    read.clear()
    bad.unlink()
    store = ensure_store(wanted, workers=1)
    assert len(read) == 10
    assert content(store.path) == from_scratch(wanted, tmp_path / "fresh", building.PART_BYTES)


@pytest.mark.slow
def test_processes_that_build_at_once(jetclass2_dir: Path, warm: WarmServer, tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    builds = [start_build(warm, script, jetclass2_dir, tmp_path / "store", workers=1) for _ in range(2)]
    assert [build.wait() for build in builds] == [0, 0]
    store = ensure_store(request(jetclass2_dir, tmp_path / "store"))
    alone = ensure_store(request(jetclass2_dir, tmp_path / "alone"), workers=1, part_bytes=PART_BYTES)
    assert content(store.path) == content(alone.path)


def test_read_only_store(jetclass_dir: Path, tmp_path: Path) -> None:
    wanted = request(jetclass_dir, tmp_path / "store", "jetclass")
    ensure_store(wanted, workers=1)
    (wanted.store_dir / f".{wanted.path.name}.lock").unlink(missing_ok=True)
    wanted.store_dir.chmod(0o500)
    try:
        assert ensure_store(wanted).n_jets > 0
        assert not list(wanted.store_dir.glob(".*.lock")), "reading a store writes nothing"
    finally:
        wanted.store_dir.chmod(0o700)


@pytest.mark.slow
def test_killed_worker(jetclass2_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = request(jetclass2_dir, tmp_path / "store")
    seen: list[str] = []

    def kill_a_worker(what: str, done: int, total: int) -> None:
        seen.append(what)
        if len(seen) == 2:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(JetDataError, match="a worker process died"):
        ensure_store(wanted, workers=2, progress=kill_a_worker, part_bytes=PART_BYTES)
    assert not wanted.path.exists()
    ensure_store(wanted, workers=1, part_bytes=PART_BYTES)


def test_views_share_the_mapped_memory(jetclass_dir: Path, tmp_path: Path) -> None:
    store = ensure_store(request(jetclass_dir, tmp_path, "jetclass"), workers=1)
    allocated = pa.total_allocated_bytes()
    jets = store.part(0).jets
    assert not jets.x_TF.flags.owndata
    assert not jets.x_TF.flags.writeable
    assert pa.total_allocated_bytes() == allocated
    batch = pa.ipc.open_file(store.path / store.entries[0]["file"]).get_batch(0)
    assert np.array_equal(view(batch).x_TF, jets.x_TF)


def test_reading_example_of_the_docs(
    jetclass_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ensure_store(request(jetclass_dir, tmp_path, "jetclass"), workers=1)
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(store.path)
    exec(compile(example, "formats.md", "exec"), {})
    assert "HToBB_000.root" in capsys.readouterr().out
