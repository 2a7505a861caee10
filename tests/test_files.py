from __future__ import annotations

import errno
import json
import os
import re
import time
from pathlib import Path

import pytest

from jetscale.common.files import (
    ABANDONED,
    DamagedFile,
    WriteError,
    atomic_path,
    checksum_file,
    file_name,
    fingerprint,
    read_sealed,
    remove_leftovers,
    remove_leftovers_of,
    sha256_file,
    write_json,
    write_sealed,
    writing,
)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted_write():
        with atomic_path(path) as aside:
            aside.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        interrupted_write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path_makes_folders_and_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "b" / "c.parquet") as aside:
        assert aside.suffix == ".parquet"
        aside.write_bytes(b"abc")
    assert sha256_file(tmp_path / "b" / "c.parquet").startswith("ba7816bf")  # FIPS 180-2, SHA-256 of "abc"


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "x.json", {"loss": 1.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"loss": 1.5}


def test_fingerprint_ignores_order_of_keys_only():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


def test_an_error_of_reading_is_not_told_as_one_of_writing(tmp_path):
    def reading():
        with atomic_path(tmp_path / "a" / "out.txt"):
            (tmp_path / "in").mkdir()
            (tmp_path / "in").read_text()

    with pytest.raises(IsADirectoryError) as caught:
        reading()
    assert not isinstance(caught.value, WriteError)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(WriteError, match=r"a/b/c.json cannot be written .*move that away"):
        write_json(tmp_path / "a" / "b" / "c.json", {})


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in (".last.77.part.pt", ".config.8.part.yaml", ".lock", "part.pt", "last.pt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "last.pt", "part.pt"]


def test_leftovers_of_one_file_are_removed_once_nobody_writes_to_them(tmp_path):
    out = tmp_path / "s[1].parquet"
    others = (".s1.77.part.parquet", ".s[1].77.part.root", ".s[1].me.part.parquet", ".s[1].2.77.part.parquet")
    for name in ("s[1].parquet", *others, ".s[1].77.part.parquet", ".s[1].78.part.parquet"):
        (tmp_path / name).touch()
        if "78" not in name:  # whose writer is at work
            os.utime(tmp_path / name, (0, time.time() - 1.1 * ABANDONED))
    remove_leftovers_of(out)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(("s[1].parquet", *others, ".s[1].78.part.parquet"))


def test_a_full_disk_promises_nothing_of_what_the_next_start_does(tmp_path):
    """A training goes on, scores are written anew."""
    message = r"free some space .* and run the same command again$"
    with pytest.raises(WriteError, match=message), writing(tmp_path / "s.parquet"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_flipped_bit_of_a_sealed_file_is_read(tmp_path: Path) -> None:
    path, content = tmp_path / "done.json", {"loss": 0.1 + 0.2, "n": 3, "name": "µ", "deep": [{"a": None}]}
    write_sealed(path, content)
    assert read_sealed(path) == content
    whole = path.read_bytes()
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=re.escape(str(path))):
            read_sealed(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", '{"checksum": 1}', '{"loss": 1, "checksum": "xxh3_128:0"}']
)
def test_what_was_never_sealed_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DamagedFile):
        read_sealed(tmp_path / "a.json")


def test_checksum_of_a_file_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert (
        checksum_file(tmp_path / "empty") == "99aa06d3014798d86001c324468d497f"
    )  # XXH3-128 of nothing, seed 0


def test_names_of_files_are_safe_and_never_shared():
    names = [
        "x y",
        "x_y",
        "x-y",
        "X_Y",
        "x/y",
        "x\\y",
        "..",
        ".",
        "",
        "é",
        "e\u0301",
        "a" * 300,
        "a" * 301,
        "x~y",
        "CON",
    ]
    files = [file_name(name) for name in names]
    assert len({file.casefold() for file in files}) == len(names)
    for file in files:
        assert re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*", file)
        assert len(file) < 100
    assert file_name("qcd_res2p") == "qcd_res2p"
