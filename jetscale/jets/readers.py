"""Read JetClass ROOT and JetClass-II parquet files in bounded memory, by name, with every value checked.

Branches are selected by name and judged by what they hold, never by the type's name: files written by
uproot have counter branches and ``float[]`` where the published ones have ``vector<float>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from jetscale.jets import parquet_reader, root_reader
from jetscale.jets.errors import JetDataError
from jetscale.jets.raw import JET_COLUMNS, RawJets, check_jets

STEP = 25_000
"""Jets read at once: about 80 MB of JetClass."""

_NEEDED = (
    "part_px",
    "part_py",
    "part_energy",
    "part_charge",
    "part_isPhoton",
    "part_isElectron",
    "part_isMuon",
)


def needed_columns(features: Sequence[str]) -> tuple[str, ...]:
    """Columns to read for a feature set that needs `features`: those, what is checked, what is kept."""
    return tuple(dict.fromkeys((*_NEEDED, *features, *JET_COLUMNS)))


def count_jets(path: Path) -> int:
    """Jets in a file, from its metadata.

    Raises
    ------
    JetDataError
        The file cannot be opened, is truncated, or holds no jets.
    """
    with _reading(path):
        n_jets = _reader(path).count(path)
    if n_jets == 0:
        raise JetDataError(f"{path}: the file holds no jets; download or simulate it again")
    return n_jets


def iter_jets(
    path: Path, features: Sequence[str], start: int = 0, stop: int | None = None, step: int = STEP
) -> Iterator[RawJets]:
    """Jets ``start`` to ``stop`` of a file, at most `step` at a time, checked.

    Parameters
    ----------
    path : a ``.root`` file is read as JetClass, a ``.parquet`` file as JetClass-II
    features : columns wanted beyond those always read (`needed_columns`)

    Raises
    ------
    JetDataError
        An unreadable or truncated file, a missing branch, a branch of the wrong type, constituent branches of
        different lengths, a non-finite input, an empty jet, labels that are not one-hot or out of range, an
        entry range outside the file.
    """
    n_jets = count_jets(path)
    stop = n_jets if stop is None else stop
    if not 0 <= start <= stop <= n_jets:
        raise JetDataError(f"{path}: entries {start} to {stop} asked, the file has {n_jets}")
    jets = _reader(path).read(path, needed_columns(features), start, stop, step)
    expected = start
    while True:
        with _reading(path):
            raw = next(jets, None)
        if raw is None:
            break
        check_jets(raw)
        expected += raw.n_jets
        yield raw
    if expected != stop:
        raise JetDataError(
            f"{path}: entries {start} to {stop} asked, the file ended at {expected}: it is truncated"
        )


def _reader(path: Path) -> root_reader.Reader:
    if path.suffix == ".root":
        return root_reader.READER
    if path.suffix == ".parquet":
        return parquet_reader.READER
    raise JetDataError(f"{path}: neither .root (JetClass) nor .parquet (JetClass-II)")


class _reading:  # noqa: N801 (a context manager, used like a function)
    """Any failure of the libraries underneath becomes a `JetDataError` that names the file.

    uproot and pyarrow raise a dozen unrelated types on damaged input, so all of `Exception` is caught.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, JetDataError | MemoryError):
            reason = str(error).strip().splitlines()
            detail = f"{type(error).__name__}: {reason[0] if reason else 'no message'}"
            raise JetDataError(
                f"{self.path}: cannot be read, damaged or truncated ({detail}); download or simulate it again"
            ) from error
