from __future__ import annotations

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from jetscale.common.files import sha256_file
from jetscale.jets.datasets.base import jet_file
from jetscale.jets.datasets.jetclass import JETCLASS_BRANCHES, JETCLASS_LABELS
from jetscale.jets.datasets.jetclass2 import JETCLASS2_COLUMNS
from jetscale.simulate import SIMULATOR_VERSION
from jetscale.simulate.card import write_card
from jetscale.simulate.output_files import read_manifest

ROOT_TYPES = {
    "list<float32>": "float[]",
    "list<int32>": "int32_t[]",
    "float32": "float",
    "int32": "int32_t",
    "bool": "bool",
}
ALL_JETCLASS = sorted(
    f"JetClass/Pythia/train_100M/{name}" for name in ("HToBB_000.root", "TTBarLep_000.root")
)
BUCKETS = ("QCD", "Res2P", "Res34P")


@pytest.mark.parametrize("name", ALL_JETCLASS)
def test_root_file_is_a_ttree_with_the_41_branches_and_their_types(sample_folder: Path, name: str) -> None:
    with uproot.open(sample_folder / name) as file:
        assert file.classnames() == {"tree;1": "TTree"}
        tree = file["tree"]
        assert set(tree.keys()) - set(JETCLASS_BRANCHES) == {"npart"}
        for branch, kind in JETCLASS_BRANCHES.items():
            assert tree[branch].typename == ROOT_TYPES[kind], branch
        assert file.file.fCompress == 404  # LZ4 level 4; uproot writes 0 in the branches, on purpose
        assert tree["label_QCD"].compressed_bytes < tree["label_QCD"].uncompressed_bytes
        assert ak.all(tree["npart"].array() == tree["jet_nparticles"].array())


@pytest.mark.parametrize("bucket", BUCKETS)
def test_parquet_file_has_the_54_columns_and_their_types(sample_folder: Path, bucket: str) -> None:
    file = pq.ParquetFile(sample_folder / jet_file("jetclass2", bucket, 0).path)
    schema = file.schema_arrow
    assert schema.names == list(JETCLASS2_COLUMNS)
    for field in schema:
        kind = JETCLASS2_COLUMNS[field.name]
        found = f"list<{field.type.value_type}>" if pa.types.is_list(field.type) else str(field.type)
        assert (
            found.replace("float>", "float32>").replace("float", "float32").replace("float3232", "float32")
            == kind
        )
    assert not any(field.nullable for field in schema)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_same_columns_as_the_public_sample(sample_folder: Path, shared_data: Path) -> None:
    path = shared_data / "JetClassII_example.parquet"
    if not path.exists():
        pytest.skip(f"{path} is missing: reference data of the developers")
    public = pq.read_schema(path)
    ours = pq.read_schema(sample_folder / jet_file("jetclass2", "Res34P", 0).path)
    assert ours.names == public.names
    for name in public.names:
        theirs, mine = public.field(name).type, ours.field(name).type
        if pa.types.is_list(theirs):
            theirs, mine = theirs.value_type, mine.value_type
        assert theirs == mine, name


def test_labels_are_one_hot_and_tell_the_process(jetclass: dict[str, ak.Array]) -> None:
    for label, jets in jetclass.items():
        flags = np.stack([ak.to_numpy(jets[f"label_{name}"]).astype(int) for name in JETCLASS_LABELS], axis=1)
        assert np.all(flags.sum(axis=1) == 1)
        assert np.all(flags.argmax(axis=1) == JETCLASS_LABELS.index(label))


def test_manifest_describes_its_file(sample_folder: Path) -> None:
    path = sample_folder / jet_file("jetclass", "WToQQ", 0).path
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["sha256"] == sha256_file(path)
    assert manifest["bytes"] == path.stat().st_size
    assert manifest["jets"] == uproot.open(path)["tree"].num_entries
    assert manifest["settings"]["seed"] == 0


def test_files_name_the_version_of_the_simulator(sample_folder: Path) -> None:
    """Inside the files, where no reader of the columns looks, and in the manifest and the data card."""
    root = sample_folder / jet_file("jetclass", "WToQQ", 0).path
    parquet = sample_folder / jet_file("jetclass2", "QCD", 0).path
    with uproot.open(root) as file:
        assert file["tree"].title == f"made_by=jetscale.simulate, simulator_version={SIMULATOR_VERSION}"
        assert file["tree"].name == "tree"
    metadata = pq.read_schema(parquet).metadata
    assert metadata[b"jetscale.simulator_version"] == str(SIMULATOR_VERSION).encode()
    for path in (root, parquet):
        assert read_manifest(path.with_suffix(".json"))["settings"]["simulator version"] == SIMULATOR_VERSION
    card = write_card(sample_folder, "jetclass2")
    text = card.read_text()
    card.unlink()
    assert f"Made by jetscale's simulator, version {SIMULATOR_VERSION}, not the published JetClass-II" in text
    assert "| primary vertex along the beam | Gaussian, 53 mm |" in text


def test_nothing_but_files_manifests_and_the_shared_table_is_left(sample_folder: Path) -> None:
    left = {path.name for path in (sample_folder / ".simulate").iterdir()}
    assert {name for name in left if not name.startswith("mpi-")} == {"lock"}
    names = [path for path in sample_folder.rglob("*") if path.is_file() and ".simulate" not in path.parts]
    assert sorted({path.suffix for path in names}) == [".json", ".parquet", ".root"]
    assert len(names) == 2 * 13
