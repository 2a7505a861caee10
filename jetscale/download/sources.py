"""What a dataset's host publishes, what of it is here, and how a fetched file gets to its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jetscale.download.needs import Needs
from jetscale.download.published import Published, size_of
from jetscale.download.receipts import Receipt, jet_files
from jetscale.download.settings import DownloadSettings
from jetscale.download.transfer import Client
from jetscale.jets.datasets.base import Dataset


@dataclass(frozen=True)
class Fetch:
    """A file to fetch.

    Attributes
    ----------
    file : as it is published
    part : partial file, hidden from the readers of jets
    mine : the same file, whole, where a user has put it; it is used instead, and stays
    unpacks : whether other files come out of it, and it is removed then
    """

    file: Published
    part: Path
    mine: Path | None = None
    unpacks: bool = False

    @property
    def path(self) -> Path:
        """Where its bytes are."""
        return self.mine or self.part

    @property
    def bytes_here(self) -> int:
        """Bytes that need not be fetched."""
        return self.file.size if self.mine else min(size_of(self.part), self.file.size)


def bytes_to_fetch(tasks: Sequence[Fetch]) -> int:
    """Bytes that are not here yet."""
    return sum(task.file.size - task.bytes_here for task in tasks)


def space_needed(tasks: Sequence[Fetch]) -> int:
    """Bytes that the disk needs for all of `tasks`, one after another.

    An archive is there together with the files that come out of it, and is removed before the next one comes.
    """
    largest = max((task.file.size for task in tasks if task.unpacks and not task.mine), default=0)
    begun = sum(size_of(task.part) for task in tasks)
    return sum(task.file.size for task in tasks) + largest - begun


class Source(Protocol):
    """A dataset at its host."""

    def todo(self) -> list[Fetch]:
        """Files to fetch; none where everything needed is here.

        Raises
        ------
        DownloadError
            What is here is not what the host publishes, or the host does not publish what is needed.
        """

    def take(self, task: Fetch) -> str:
        """Put a fetched file, whose checksum was compared, in its place.

        Parameters
        ----------
        task : one of `todo`

        Returns
        -------
        What became of it, in words.
        """


@dataclass
class Place:
    """A dataset's folder, and what is needed in it.

    Attributes
    ----------
    settings : of the command
    dataset : which one
    folder : its folder below ``dir``
    needs : number of files by split and process
    client : asks the host
    receipt : of what was fetched before
    """

    settings: DownloadSettings
    dataset: Dataset
    folder: Path
    needs: Needs
    client: Client
    receipt: Receipt = field(init=False)

    def __post_init__(self) -> None:
        self.receipt = Receipt(self.folder)

    def here(self) -> dict[str, Path]:
        """Jet files below the folder, by name."""
        return jet_files(self.folder, self.dataset)

    def missing(self, split: str) -> dict[str, int]:
        """Number of files that a split lacks, by process; those that lack none are left out."""
        have = dict.fromkeys(self.needs[split], 0)
        for name in self.here():
            file = self.dataset.file_of(name)
            if file.split == split:
                have[file.process] += 1
        return {
            process: count - have[process]
            for process, count in self.needs[split].items()
            if have[process] < count
        }
