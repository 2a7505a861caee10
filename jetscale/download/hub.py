"""JetClass-II at Hugging Face: one parquet file of 100,000 jets each, with SHA-256 checksums.

The hub's own client lists the files (pages, waiting, ``HF_ENDPOINT``); the bytes come through
`jetscale.download.transfer`, since the client begins a file anew after a kill and compares no checksum.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from jetscale.common.usage import install_extra
from jetscale.download.published import DownloadError, Published, size_of, verify
from jetscale.download.receipts import move_into_place
from jetscale.download.sources import Fetch, Place
from jetscale.jets.datasets.base import jet_file
from jetscale.jets.datasets.jetclass2 import JETCLASS2_NUMBERS
from jetscale.jets.errors import raise_problems

REPOSITORY = "jet-universe/jetclass2"

log = logging.getLogger(__name__)


class JetClass2:
    """The parquet files of the repository, as its newest commit has them.

    Parameters
    ----------
    place : where they belong, and what is needed

    Raises
    ------
    DownloadError
        The host cannot be asked, or lacks a file that is needed.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        published = _published(place)
        wanted = [
            jet_file("jetclass2", bucket, number).path
            for split, buckets in place.needs.items()
            for bucket, count in buckets.items()
            for number in JETCLASS2_NUMBERS[bucket][split][:count]
        ]
        raise_problems(
            [
                f"{REPOSITORY}: has no file {path.name}, which is needed"
                for path in wanted
                if path.name not in published
            ],
            "files are not published",
        )
        self._files = {Path(place.settings.dir) / path: published[path.name] for path in wanted}

    def todo(self) -> list[Fetch]:
        """Files to fetch; those that are here are compared with the published ones; see `Source.todo`."""
        here = self._place.here()
        tasks, problems = [], []
        for path, file in self._files.items():
            if file.name not in here:
                tasks.append(Fetch(file, path.with_name(f".{file.name}.part")))
            elif problem := self._difference(here[file.name], file):
                problems.append(problem)
        raise_problems(problems, "files are not the published ones")
        return tasks

    def take(self, task: Fetch) -> str:
        """Give a file its name; see `Source.take`."""
        path = task.part.with_name(task.file.name)
        move_into_place(task.part, path)
        self._place.receipt.put(path, task.file.checksum)
        self._place.receipt.save()
        return str(path)

    def _difference(self, path: Path, file: Published) -> str | None:
        """What distinguishes a file that is here from the published one."""
        receipt = self._place.receipt
        way_out = "move it away and run the same command again"
        if (size := size_of(path)) != file.size:
            return f"{path}: has {size:,} bytes, {file.url} has {file.size:,}; {way_out}"
        if receipt.has(file.name):
            found = receipt.checksum(file.name)
        elif self._place.settings.dry:
            return None  # a dry run reads no gigabytes
        else:
            found = verify(file, path) or file.checksum
            receipt.put(path, found)
        return None if found == file.checksum else (
            f"{path}: checksum {found}, {file.url} has {file.checksum}; {way_out}"
        )  # fmt: skip


def _published(place: Place) -> dict[str, Published]:
    """Every parquet file of the repository, by name.

    Raises
    ------
    DownloadError
        The client is not installed, or the host cannot be asked.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_url
    except ImportError as error:
        raise DownloadError(
            f"dataset=jetclass2 needs {error.name}, which is not installed: {install_extra('download')}"
        ) from error
    api = HfApi(endpoint=place.settings.host and place.settings.host.rstrip("/"), token=False)  # it is public
    try:
        commit = api.repo_info(REPOSITORY, repo_type="dataset").sha
        tree = list(api.list_repo_tree(REPOSITORY, recursive=True, revision=commit, repo_type="dataset"))
    except Exception as error:  # the client raises its own, its HTTP library's and plain ones
        reason = next(iter(str(error).strip().splitlines()), "no message")
        raise DownloadError(
            f"{api.endpoint}: the files of {REPOSITORY} cannot be listed ({type(error).__name__}: {reason}); "
            "see that the server answers, and run the same command again"
        ) from error
    found = {}
    for entry in tree:
        name = Path(entry.path).name
        if name.endswith(place.dataset.suffixes):
            url = hf_hub_url(
                REPOSITORY, entry.path, repo_type="dataset", revision=commit, endpoint=api.endpoint
            )
            found[name] = _file(name, url, entry)
    return found


def _file(name: str, url: str, entry: Any) -> Published:
    if entry.lfs is None:
        raise DownloadError(
            f"{url}: the host names no SHA-256 for {name}, so it cannot be checked; tell the host"
        )
    return Published(name, url, int(entry.size), "sha256", entry.lfs.sha256)
