"""JetClass ROOT files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from jetscale.jets.errors import JetDataError
from jetscale.jets.labels import JETCLASS_LABELS
from jetscale.jets.locations import File
from jetscale.jets.raw import Array, RawJets, assemble
from jetscale.jets.schemas import JETCLASS_TREE


class RootReader:
    """TTree ``tree`` of one open file."""

    def __init__(self, path: Path, called: File) -> None:
        self._path = called
        self._file = uproot.open(path)
        end = int(self._file.file.fEND)
        if path.stat().st_size < end:  # uproot reads on as long as the lost bytes are not asked for
            raise JetDataError(
                f"{called}: truncated, {path.stat().st_size} of {end} bytes; download or simulate it again"
            )
        if JETCLASS_TREE not in self._file:
            held = ", ".join(self._file.keys()) or "nothing"
            raise JetDataError(f"{called}: no TTree {JETCLASS_TREE!r}; it holds {held}")
        self._tree = self._file[JETCLASS_TREE]
        self.n_jets = int(self._tree.num_entries)

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets of an entry range, at most `step` at a time."""
        labels = [f"label_{name}" for name in JETCLASS_LABELS]
        wanted = [*columns, *labels]
        missing = sorted(set(wanted) - set(self._tree.keys()))
        if missing:
            raise JetDataError(f"{self._path}: no branch {', '.join(missing)} in {JETCLASS_TREE!r}")
        for arrays in self._tree.iterate(
            filter_name=wanted, entry_start=start, entry_stop=stop, step_size=step, library="ak", how=dict
        ):
            raw = _cast(self._path, start, columns, labels, arrays)
            yield raw
            start += raw.n_jets

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cast(
    path: File, entry: int, columns: Sequence[str], labels: list[str], arrays: dict[str, Any]
) -> RawJets:
    one_hot = np.stack([_flat(path, name, arrays[name]).astype(np.float32) for name in labels], axis=1)
    return assemble(
        path,
        entry,
        columns,
        lambda name: _jagged(path, name, arrays[name]),
        lambda name: _flat(path, name, arrays[name]),
        _label_index(path, entry, one_hot),
    )


def _label_index(path: File, entry: int, one_hot: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Index of the one label that is set, of (B, 10) published as float, bool and int32."""
    good = ((one_hot == 0) | (one_hot == 1)).all(axis=1) & (one_hot.sum(axis=1) == 1)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        found = {
            name: float(value) for name, value in zip(JETCLASS_LABELS, one_hot[at], strict=True) if value != 0
        }
        raise JetDataError(f"{path}: entry {entry + at}: labels are not one-hot, non-zero are {found}")
    index: npt.NDArray[np.uint8] = one_hot.argmax(axis=1).astype(np.uint8)
    return index


def _jagged(path: File, name: str, array: Any) -> tuple[npt.NDArray[np.int64], Array]:
    layout = ak.to_layout(array)
    if not layout.is_list:
        raise JetDataError(f"{path}: branch {name} is {array.type.content}, not a list per jet")
    packed = layout.to_ListOffsetArray64(True)
    offsets = np.asarray(packed.offsets.data)
    content = packed.content
    if not content.is_numpy or content.inner_shape or content.dtype.kind not in "biuf":
        raise JetDataError(f"{path}: branch {name} is {array.type.content}, not a list of numbers")
    return offsets, np.asarray(content.data)[: offsets[-1]]


def _flat(path: File, name: str, array: Any) -> Array:
    layout = ak.to_layout(array)
    if not layout.is_numpy or layout.inner_shape or layout.dtype.kind not in "biuf":
        raise JetDataError(f"{path}: branch {name} is {array.type.content}, not one number per jet")
    return np.asarray(layout.data)
