"""Files that are not what their name says: each is called what it is, with the way out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from jetscale.jets.datasets.base import jet_file
from jetscale.jets.errors import JetDataError
from jetscale.jets.features import PART17
from jetscale.jets.reading.raw import RawJets
from jetscale.jets.stores.building import ensure_store
from tests.jets.stores import open_jets, request
from tests.jets.variants import BY_ROOT, columns_of, write_root, write_tree

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 136175293\n"
)
S3_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message><RequestId>656c76696e67</RequestId></Error>"
)
LOGIN = b"\n\n<!DOCTYPE html>\n<html lang='en'><head><title>\n  Sign in </title></head><body></body></html>"


def tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("HToBB_000.root")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("HToBB_000.root", content)
    return stream.getvalue()


def parquet(_: bytes) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), stream)
    return stream.getvalue()


def numpy_file(_: bytes) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


FOREIGN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "lfs": (
        lambda _: POINTER,
        r"it is a Git LFS pointer \(.*\), not a ROOT file; .* `git lfs pull`",
    ),
    "annex": (lambda _: b"/annex/objects/SHA256E-s1--4d.root\n", r"a git-annex pointer .*`git annex get`"),
    "html": (
        lambda _: LOGIN,
        r"an HTML page \('Sign in'\), not a ROOT file; .*your login, and download",
    ),
    "bare html": (lambda _: b"<html>404</html>" * 100, r"an HTML page \('<html>404</html>"),
    "byte order mark": (lambda _: b"\xef\xbb\xbf<HTML>404</HTML>", r"an HTML page"),
    "s3": (lambda _: S3_ERROR, r"an XML document \('AccessDenied'\), not a ROOT file"),
    "json": (lambda _: b'{"status": 403, "message": "log in"}', r"""a JSON document \('{"status": 403"""),
    "text": (lambda _: b"Not Found\n", r"a text file \('Not Found'\)"),
    "gzip": (gzip.compress, r"a gzip archive, not a ROOT file; unpack it"),
    "bzip2": (bz2.compress, r"a bzip2 archive"),
    "xz": (lzma.compress, r"an xz archive"),
    "zip": (zipped, r"a zip archive"),
    "tar": (tar, r"a tar archive, not a ROOT file; unpack it"),
    "parquet": (
        parquet,
        r"a parquet file, not a ROOT file; JetClass files are ROOT",
    ),
    "hdf5": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(100), r"an HDF5 file"),
    "numpy": (numpy_file, r"a numpy file"),
    "zeros": (lambda content: bytes(len(content)), r"zeros at its beginning, as an unfinished download"),
    "first byte": (lambda content: b"R" + content[1:], r"damaged: it begins with the bytes 52 6f 6f 74"),
    "empty": (lambda _: b"", r"the file is empty \(0 bytes\)"),
}


def read_all(path: Path) -> list[RawJets]:
    with open_jets(path) as file:
        return list(file.jets(PART17.reads))


@pytest.mark.parametrize("case", FOREIGN)
def test_not_a_root_file(tmp_path: Path, case: str) -> None:
    make, message = FOREIGN[case]
    path = tmp_path / "HToBB_000.root"
    path.write_bytes(make(BY_ROOT.read_bytes()))
    with pytest.raises(JetDataError, match=rf"{path}: .*{message}") as error:
        read_all(path)
    assert len(str(error.value).splitlines()) == 1


def test_not_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "QCD_0000.parquet"
    for content, message in (
        (BY_ROOT.read_bytes(), "it is a ROOT file, not a parquet file; JetClass files are ROOT"),
        (POINTER, "it is a Git LFS pointer"),
        (LOGIN, "it is an HTML page"),
        (gzip.compress(b"x"), "it is a gzip archive, not a parquet file"),
    ):
        path.write_bytes(content)
        with pytest.raises(JetDataError, match=f"QCD_0000.parquet: cannot be read, {message}"):
            read_all(path)


def test_neither_suffix_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(JetDataError, match=r"x.h5: JetClass-II is read as parquet files"):
        read_all(tmp_path / "x.h5")
    with pytest.raises(JetDataError, match=r"x.root: cannot be read \(No such file or directory\)"):
        read_all(tmp_path / "x.root")
    (tmp_path / "y.root").mkdir()
    with pytest.raises(JetDataError, match=r"y.root: cannot be read \(Is a directory\)"):
        read_all(tmp_path / "y.root")


def test_rntuple(tmp_path: Path) -> None:
    path = tmp_path / "HToBB_000.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("tree", columns_of())
    with pytest.raises(
        JetDataError, match=r"HToBB_000.root: 'tree' is an RNTuple, not a TTree: write it with mktree"
    ):
        read_all(path)


def test_no_tree_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "HToBB_000.root"
    with uproot.recreate(path) as file:
        write_tree(file, columns_of(), "Events")
        file["tree"] = np.histogram([1.0, 2.0])
    with pytest.raises(JetDataError, match=r"'tree' is a TH1D, not a TTree with jets"):
        read_all(path)
    with uproot.recreate(path) as file:
        write_tree(file, columns_of(), "Events")
    with pytest.raises(JetDataError, match=r"no TTree 'tree'; it holds Events;1 \(TTree\); the jets must be"):
        read_all(path)


def test_another_tree_beside(tmp_path: Path) -> None:
    columns = columns_of()
    path = tmp_path / "HToBB_000.root"
    with uproot.recreate(path) as file:
        file.mktree("about", {"year": "int32"})
        write_tree(file, columns)
        write_tree(file, {name: values[:5] for name, values in columns.items()}, "tree2")
    (raw,) = read_all(path)
    assert raw.n_jets == 30


def test_cycles(tmp_path: Path) -> None:
    """An older cycle is what ROOT kept on the way, or other jets; the second kind must not be lost."""
    columns = columns_of()
    half = {name: values[:15] for name, values in columns.items()}
    rest = {name: values[15:] for name, values in columns.items()}
    path = tmp_path / "HToBB_000.root"

    def write(*trees: dict[str, ak.Array]) -> None:
        with uproot.recreate(path) as file:
            for tree in trees:
                write_tree(file, tree)

    write(half, columns)
    (raw,) = read_all(path)
    assert raw.n_jets == 30
    for trees in ((half, rest), (columns, half), (rest, half, columns)):
        write(*trees)
        with pytest.raises(JetDataError, match=r"tree;\d and tree;\d hold different jets, and only one"):
            read_all(path)


PACKINGS = {
    "none": None,
    "lz4": uproot.LZ4(4),
    "zlib": uproot.ZLIB(1),
    "zstd": uproot.ZSTD(1),
    "lzma": uproot.LZMA(1),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_same_jets_of_any_compression_and_width(tmp_path: Path, packing: str) -> None:
    (expected,) = read_all(BY_ROOT)
    wide = {}
    for name, values in columns_of().items():
        kind = str(ak.type(values)).rpartition("*")[2].strip()
        wide[name] = ak.values_astype(values, {"float32": "float64", "int32": "int64"}.get(kind, kind))
    for columns in (columns_of(), wide):
        path = write_root(tmp_path / "HToBB_000.root", columns, compression=PACKINGS[packing])
        (raw,) = read_all(path)
        assert raw.labels.tolist() == expected.labels.tolist()
        for name, values in expected.constituents.items():
            assert raw.constituents[name].dtype == values.dtype
            assert np.array_equal(raw.constituents[name], values), name
        for name, values in expected.jets.items():
            assert np.array_equal(raw.jets[name], values), name


@pytest.mark.slow
def test_the_same_errors_from_worker_processes(fill: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass(tmp_path, n_jets=5, files=1)
    bad = [tmp_path / jet_file("jetclass", name, 0).path for name in ("HToBB", "HToCC", "HToGG", "ZToQQ")]
    bad[0].write_bytes(POINTER)
    bad[1].write_bytes(LOGIN)
    flags = ak.values_astype(columns_of()["part_isPhoton"], np.float32)
    write_root(bad[2], {**columns_of(), "part_isPhoton": flags * np.float32(np.nan)})
    with uproot.recreate(bad[3]) as file:
        file.mkrntuple("tree", columns_of())
    said = []
    for workers in (1, 2):
        with pytest.raises(JetDataError) as error:
            ensure_store(request(tmp_path, tmp_path / f"store{workers}", "jetclass"), workers=workers)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert said[0].startswith("4 of 10 files cannot be used")
    for path, what in zip(bad, ("Git LFS", "HTML", "part_isPhoton = nan", "an RNTuple"), strict=True):
        assert re.search(rf"{path}.*{what}", said[0])


def test_unreadable_file(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    path = tmp_path / "HToBB_000.root"
    path.write_bytes(BY_ROOT.read_bytes())
    path.chmod(0)
    with pytest.raises(JetDataError, match=r"HToBB_000.root: cannot be read \(Permission denied\)"):
        read_all(path)
