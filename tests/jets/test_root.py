"""ROOT files of every compression, and as ROOT itself writes the published types."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
import uproot

from jetscale.jets.errors import JetDataError
from jetscale.jets.features import PART17
from tests.jets.stores import open_jets

BY_ROOT = Path(__file__).with_name("data") / "HToBB_000.root"
"""30 random jets by ROOT 6.40: ``std::vector<float>`` and ``<int>``, LZ4 level 4, three baskets a branch
(by_root.py beside it)."""


def compare(path: Path, step: int) -> None:
    """Read in steps, and compare with whole branches as uproot gives them."""
    with uproot.open(path) as file, open_jets(path) as reader:
        tree = file["tree"]
        pieces = list(reader.jets(PART17.reads, step=step))
        assert [piece.first_entry for piece in pieces] == list(range(0, tree.num_entries, step))
        counts = np.concatenate([np.diff(piece.offsets) for piece in pieces])
        assert np.array_equal(counts, ak.num(tree["part_px"].array()).to_numpy())
        for name in (*PART17.reads, "part_px"):
            expected = tree[name].array(library="ak")
            where = "constituents" if name.startswith("part_") else "jets"
            values = np.concatenate([getattr(piece, where)[name] for piece in pieces])
            expected = ak.flatten(expected, axis=None).to_numpy()
            assert np.array_equal(values, expected), name


@pytest.mark.parametrize("step", [5, 12, 30])
def test_what_root_writes(step: int) -> None:
    with uproot.open(BY_ROOT) as file:
        branch = file["tree"]["part_px"]
        assert branch.typename == "std::vector<float>"
        assert branch.interpretation.header_bytes == 10
        assert branch.num_baskets > 1
    compare(BY_ROOT, step)


def test_jets_of_root() -> None:
    with open_jets(BY_ROOT) as file, uproot.open(BY_ROOT) as again:
        (raw,) = file.jets(PART17.reads)
        expected = again["tree"].arrays(["part_energy", "part_isMuon", "jet_tau4"])
    assert raw.labels.tolist() == [1] * 30
    assert raw.constituents["part_energy"].tolist() == ak.flatten(expected["part_energy"]).to_list()
    assert raw.constituents["part_isMuon"].tolist() == (ak.flatten(expected["part_isMuon"]) == 1).to_list()
    assert raw.jets["jet_tau4"].tolist() == expected["jet_tau4"].to_list()


@pytest.mark.parametrize("packing", ["LZ4", "none", "ZLIB", "ZSTD"])
def test_every_compression(write: SimpleNamespace, tmp_path: Path, packing: str) -> None:
    plain = write.jetclass(tmp_path / "HToBB_000.root", "Hbb", 200, seed=1)
    path = tmp_path / "HToBB_001.root"
    compression = {"LZ4": uproot.LZ4(4), "none": None, "ZLIB": uproot.ZLIB(1), "ZSTD": uproot.ZSTD(1)}
    with uproot.open(plain) as source, uproot.recreate(path, compression=compression[packing]) as target:
        arrays = source["tree"].arrays(library="ak", how=dict)
        arrays = {name: values for name, values in arrays.items() if not name.startswith("n")}
        target.mktree("tree", {name: ak.type(values).content for name, values in arrays.items()})
        for low in range(0, 200, 70):
            target["tree"].extend({name: values[low : low + 70] for name, values in arrays.items()})
    compare(path, 50)


def test_damaged_basket(tmp_path: Path) -> None:
    """A byte that is changed in a basket's head or content is found, or does not matter."""
    path = tmp_path / "HToBB_000.root"
    original = BY_ROOT.read_bytes()
    with uproot.open(BY_ROOT) as file:
        branch = file["tree"]["part_isMuon"]
        seek, size = (int(branch.member(name)[1]) for name in ("fBasketSeek", "fBasketBytes"))
    with open_jets(BY_ROOT) as reader:
        (whole,) = reader.jets(PART17.reads)
    unharmed = 0
    for place in (*range(0, 70, 10), *range(70, size, 9), size - 3):
        content = bytearray(original)
        content[seek + place] ^= 0x40
        path.write_bytes(content)
        with open_jets(path) as reader, suppress(JetDataError):
            (raw,) = reader.jets(PART17.reads)
            assert np.array_equal(raw.offsets, whole.offsets)
            for name, values in raw.constituents.items():
                assert np.array_equal(values, whole.constituents[name])
            unharmed += 1
    assert unharmed < 10, "bytes that do not matter"
    with open_jets(path) as reader, pytest.raises(JetDataError, match="computed checksum"):
        list(reader.jets(PART17.reads))
