"""JetClass at Zenodo: tar archives, ten of the training split and one of each other, with MD5 checksums.

The record's JSON names every file, its size, checksum and address. What is inside an archive is known when it
is here, so as many training archives are fetched as the files of every class take.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jetscale.download.archives import extract
from jetscale.download.published import DownloadError, Published, size_of
from jetscale.download.sources import Fetch, Place
from jetscale.jets.datasets.jetclass import JETCLASS_FOLDERS, JETCLASS_NUMBERS
from jetscale.jets.errors import raise_problems
from jetscale.jets.reading.locations import files_below

HOST = "https://zenodo.org"
RECORD = 6619768
"""JetClass, version 1.0.0."""

_ARCHIVE = re.compile(r"JetClass_Pythia_(train_100M|val_5M|test_20M)(?:_part(\d+))?\.tar")
_SPLITS = {folder: split for split, folder in JETCLASS_FOLDERS.items()}


class JetClass:
    """The archives of the record.

    Parameters
    ----------
    place : where their files belong, and what is needed
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._archives = _published(place)

    def todo(self) -> list[Fetch]:
        """Archives to fetch and unpack, those first that are begun or here; see `Source.todo`."""
        tasks: list[Fetch] = []
        mine = self._mine()
        for split in self._place.needs:
            of_split = [self._task(archive, mine) for archive in self._of_split(split)]
            left = [task for task in of_split if not self._place.receipt.has_archive(task.file)]
            ended = [task for task in left if size_of(task.part) == task.file.size]
            number = max(self._number(split, len(of_split)), len(ended))
            if number and not left:
                lack = ", ".join(f"{count} of {one}" for one, count in self._place.missing(split).items())
                raise DownloadError(
                    f"{self._place.folder}: all {len(of_split)} {split} archives of the record are unpacked, "
                    f"and {split} files are missing ({lack}); see what was moved away, or run check=true"
                )
            tasks += sorted(left, key=lambda task: task not in ended)[:number]
        return tasks

    def take(self, task: Fetch) -> str:
        """Unpack an archive, and remove it if this command has fetched it; see `Source.take`."""
        place = self._place
        placed = extract(task.path, place.folder, place.dataset, place.here())
        for path, checksum in placed.items():
            place.receipt.put(path, checksum)
        place.receipt.put_archive(task.file, [path.name for path in placed])
        place.receipt.save()
        task.part.unlink(missing_ok=True)
        return f"{len(placed)} files"

    def _number(self, split: str, archives: int) -> int:
        """How many more archives of a split are needed, if its classes are alike in all of them."""
        lack = max(self._place.missing(split).values(), default=0)
        return -(-lack * archives // len(JETCLASS_NUMBERS[split]))

    def _of_split(self, split: str) -> list[Published]:
        found = [(match, file) for match, file in self._archives if _SPLITS[match[1]] == split]
        if not found:
            names = ", ".join(file.name for _, file in self._archives) or "none of JetClass"
            raise DownloadError(
                f"{_address(self._place)}: the record has no archive of the {split} split; there are {names}"
            )
        return [file for _, file in sorted(found, key=lambda one: int(one[0][2] or 0))]

    def _mine(self) -> dict[str, Path]:
        """Archives that a user has put below the folder, by name.

        Raises
        ------
        DownloadError
            One of them has another size than is published.
        """
        published = {file.name: file for _, file in self._archives}
        found = {
            item.file.name: item.file
            for item in files_below(self._place.folder, ".tar").files
            if isinstance(item.file, Path) and item.file.name in published
        }
        raise_problems(
            [
                f"{path}: has {size_of(path):,} bytes, the record says {published[name].size:,}; remove it, "
                f"or rename it to .{name}.part in {self._place.folder} and its download goes on"
                for name, path in found.items()
                if size_of(path) != published[name].size
            ],
            "archives cannot be used",
        )
        return found

    def _task(self, archive: Published, mine: dict[str, Path]) -> Fetch:
        part = self._place.folder / f".{archive.name}.part"
        return Fetch(archive, part, mine.get(archive.name), unpacks=True)


def _address(place: Place) -> str:
    return f"{(place.settings.host or HOST).rstrip('/')}/api/records/{RECORD}"


def _published(place: Place) -> list[tuple[re.Match[str], Published]]:
    """Archives of jets that the record names.

    Raises
    ------
    DownloadError
        The record cannot be had, or is of another form than Zenodo's.
    """
    url = _address(place)
    record = place.client.json(url)
    entries = record.get("files") if isinstance(record, dict) else None
    if not isinstance(entries, list):
        raise DownloadError(
            f"{url}: no record of Zenodo, its JSON has no list `files`; see that host= is right"
        )
    found = []
    for entry in entries:
        match = _ARCHIVE.fullmatch(str(entry.get("key"))) if isinstance(entry, dict) else None
        if match:
            found.append((match, _file(url, entry)))
    return found


def _file(url: str, entry: dict[str, Any]) -> Published:
    checksum = re.fullmatch(r"(md5|sha256):([0-9a-f]+)", str(entry.get("checksum")))
    size, links = entry.get("size"), entry.get("links")
    address = links.get("self") if isinstance(links, dict) else None
    if not (checksum and isinstance(size, int) and size > 0 and re.match(r"https?://", str(address))):
        raise DownloadError(
            f"{url}: the entry of {entry['key']} lacks a checksum (md5:...), a size or an address: {entry}"
        )
    return Published(entry["key"], str(address), size, checksum[1], checksum[2])
