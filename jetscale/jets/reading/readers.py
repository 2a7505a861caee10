"""Read JetClass ROOT and JetClass-II parquet files in bounded memory, by name, with every value checked.

Branches are selected by name and judged by what they hold, never by the type's name: files written by
uproot have counter branches and ``float[]`` where the published ones have ``vector<float>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.contents import check_contents
from jetscale.jets.reading.locations import File
from jetscale.jets.reading.manifests import compare_with_manifest
from jetscale.jets.reading.parquet_reader import ParquetReader
from jetscale.jets.reading.raw import ALWAYS_READ, JET_COLUMNS, RawJets
from jetscale.jets.reading.root_reader import RootReader
from jetscale.jets.reading.sanity import check_jets

STEP = 5_000
"""Jets read at once: 15 MB of JetClass. With larger steps the arrays leave cache and heap: slower."""


def needed_columns(features: Sequence[str]) -> tuple[str, ...]:
    """Columns to read for a feature set that needs `features`: those, what is checked, what is kept."""
    return tuple(dict.fromkeys((*ALWAYS_READ, *features, *JET_COLUMNS)))


class JetReader(Protocol):
    """What a file format offers: one open file."""

    n_jets: int

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets of an entry range, at most `step` at a time."""

    def close(self) -> None:
        """Close the file."""


class JetFileReader:
    """An open jet file: its number of jets, and any range of them.

    Parameters
    ----------
    path : a ``.root`` file is read as JetClass, a ``.parquet`` file as JetClass-II
    called : what errors call it, where `path` is a copy of it

    Raises
    ------
    JetDataError
        The file cannot be opened, is truncated, holds no jets, or is not the one of the manifest beside it.
    """

    def __init__(self, path: Path, called: File | None = None) -> None:
        self.path = called or path
        with reading(self.path):
            compare_with_manifest(path, self.path)
            self._reader = _open(path, self.path)
        self.n_jets = self._reader.n_jets
        if self.n_jets == 0:
            raise JetDataError(f"{self.path}: the file holds no jets; download or simulate it again")

    def jets(
        self, features: Sequence[str], start: int = 0, stop: int | None = None, step: int = STEP
    ) -> Iterator[RawJets]:
        """Jets `start` to `stop`, at most `step` at a time, checked.

        Parameters
        ----------
        features : columns wanted beyond those always read (`needed_columns`)

        Raises
        ------
        JetDataError
            A truncated file, a missing branch, a branch of the wrong type, constituent branches of different
            lengths, a non-finite input, an empty jet, labels that are not one-hot or out of range, an entry
            range outside the file.
        """
        stop = self.n_jets if stop is None else stop
        if not 0 <= start <= stop <= self.n_jets:
            raise JetDataError(f"{self.path}: entries {start} to {stop} asked, the file has {self.n_jets}")
        chunks = self._reader.read(needed_columns(features), start, stop, step)
        while True:
            with reading(self.path):
                raw = next(chunks, None)
            if raw is None:
                break
            check_jets(raw)
            start += raw.n_jets
            yield raw
        if start != stop:
            raise JetDataError(f"{self.path}: ends at entry {start} instead of {stop}: it is truncated")

    def __enter__(self) -> JetFileReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()


def _open(path: Path, called: File) -> JetReader:
    check_contents(path, called)
    return RootReader(path, called) if path.suffix == ".root" else ParquetReader(path, called)


class reading:  # noqa: N801 (a context manager, used like a function)
    """Any failure of the libraries underneath becomes a `JetDataError` that names the file.

    uproot and pyarrow raise a dozen unrelated types on damaged input, so all of `Exception` is caught.
    """

    def __init__(self, path: File) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, JetDataError | MemoryError):
            if isinstance(error, OSError) and error.strerror:
                raise JetDataError(f"{self.path}: cannot be read ({error.strerror})") from error
            reason = str(error).strip().splitlines()
            detail = f"{type(error).__name__}: {reason[0] if reason else 'no message'}"
            raise JetDataError(
                f"{self.path}: cannot be read, damaged or truncated ({detail}); download or simulate it again"
            ) from error
