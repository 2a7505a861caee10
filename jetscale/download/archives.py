"""Jet files out of a tar archive: whole or not at all, to the place of their names, nothing overwritten."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

import xxhash

from jetscale.common.files import CHECKSUM, checksum_file, writing
from jetscale.download.published import DownloadError
from jetscale.download.receipts import move_into_place
from jetscale.jets.datasets.base import Dataset, JetFile

log = logging.getLogger(__name__)

_BLOCK = 1 << 18


def extract(archive: Path, folder: Path, dataset: Dataset, here: dict[str, Path]) -> dict[Path, str]:
    """Put the jet files of an archive in place.

    All are written beside their places under hidden names first, and compared with the archive; then they are
    renamed. A file that is here already stays if it has the same bytes.

    Parameters
    ----------
    archive : tar file without compression, whose checksum was compared
    folder : of the dataset
    dataset : whose files these are
    here : jet files that are here already, by name

    Returns
    -------
    The place of every jet file of the archive, and its checksum.

    Raises
    ------
    DownloadError
        The archive is damaged, holds a link or an entry that leads out of its folder, the same name twice,
        or a file whose place is taken by other bytes.
    jetscale.common.files.WriteError
        The disk is full, ...
    """
    placed: dict[Path, str] = {}
    aside: dict[Path, Path] = {}
    try:
        with tarfile.open(archive, "r:") as tar:
            for member, file in _jet_members(tar, archive, folder, dataset):
                name = file.path.name
                path = here.get(name, folder.parent / file.path)
                if path in placed:
                    raise DownloadError(f"{archive}: holds {name} twice; tell the host of the dataset")
                placed[path] = f"{CHECKSUM}:{_checksum_inside(tar, member)}"
                if name in here:
                    way_out = "it is not the public file: move it away and run the same command again"
                    _compare(path, placed[path], archive, way_out)
                else:
                    aside[path] = _write_aside(tar, member, path)
                    way_out = "the disk did not keep what was written: run the same command again"
                    _compare(aside[path], placed[path], archive, way_out)
        if not placed:
            raise DownloadError(f"{archive}: holds no file of {dataset.title} ({dataset.file_names})")
        for path, written in aside.items():
            move_into_place(written, path)
    except tarfile.TarError as error:
        raise DownloadError(
            f"{archive}: no readable tar archive ({error}); remove it and run the same command again"
        ) from error
    finally:
        for written in aside.values():
            written.unlink(missing_ok=True)
    return placed


def _write_aside(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Path:
    """Write an entry beside its place; what a killed extraction left there is replaced."""
    aside = path.with_name(f".{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        try:
            tar.extract(member.replace(name=aside.name, deep=False), path.parent, filter="data")
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    return aside


def _compare(path: Path, expected: str, archive: Path, way_out: str) -> None:
    found = f"{CHECKSUM}:{checksum_file(path)}"
    if found != expected:
        raise DownloadError(f"{path}: checksum {found} instead of {expected} in {archive.name}; {way_out}")


def _jet_members(
    tar: tarfile.TarFile, archive: Path, folder: Path, dataset: Dataset
) -> Iterator[tuple[tarfile.TarInfo, JetFile]]:
    """Entries that are jet files, with what their names tell; folders are passed over, other files named.

    Raises
    ------
    DownloadError
        An entry is a link or a device, or leads out of the folder.
    """
    for member in tar:
        try:
            tarfile.data_filter(member, str(folder))
        except tarfile.FilterError as error:
            raise DownloadError(
                f"{archive}: entry {member.name!r} is refused ({error}); tell the host"
            ) from error
        if member.isdir():
            continue
        if not member.isreg():
            raise DownloadError(f"{archive}: entry {member.name!r} is no file; tell the host of the dataset")
        name = Path(member.name).name
        try:
            yield member, dataset.file_of(name)
        except ValueError:
            log.warning("%s: entry %r is no file of %s and stays packed", archive, member.name, dataset.title)


def _checksum_inside(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    digest = xxhash.xxh3_128()
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file
    with stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
