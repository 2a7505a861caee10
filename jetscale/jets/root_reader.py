"""JetClass ROOT files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import uproot

from jetscale.jets.baskets import Known, NumberBranch
from jetscale.jets.errors import JetDataError
from jetscale.jets.labels import JETCLASS_LABELS
from jetscale.jets.locations import File
from jetscale.jets.raw import RawJets, assemble
from jetscale.jets.schemas import JETCLASS_TREE


class RootReader:
    """TTree ``tree`` of one open file."""

    def __init__(self, path: Path, called: File) -> None:
        self._path = called
        with ExitStack() as opened:
            self._stream = opened.enter_context(path.open("rb", buffering=0))
            file = opened.enter_context(uproot.open(path))
            end = int(file.file.fEND)
            size = path.stat().st_size
            if size < end:  # uproot reads on as long as the lost bytes are not asked for
                raise JetDataError(
                    f"{called}: truncated, {size} of {end} bytes; download or simulate it again"
                )
            if JETCLASS_TREE not in file:
                held = ", ".join(file.keys()) or "nothing"
                raise JetDataError(f"{called}: no TTree {JETCLASS_TREE!r}; it holds {held}")
            self._tree = file[JETCLASS_TREE]
            self.n_jets = int(self._tree.num_entries)
            self._known: Known = {}
            self._opened = opened.pop_all()

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets of an entry range, at most `step` at a time."""
        labels = [f"label_{name}" for name in JETCLASS_LABELS]
        wanted = [*columns, *labels]
        missing = sorted(set(wanted) - set(self._tree.keys()))
        if missing:
            raise JetDataError(f"{self._path}: no branch {', '.join(missing)} in {JETCLASS_TREE!r}")
        branches = {name: self._branch(name) for name in wanted}
        for low in range(start, stop, step):
            arrays = {name: branch.read(low, min(low + step, stop)) for name, branch in branches.items()}
            one_hot = np.stack([arrays[name][0].astype(np.float32) for name in labels], axis=1)
            yield assemble(
                self._path,
                low,
                columns,
                lambda name: (arrays[name][1], arrays[name][0]),  # noqa: B023 (called before the next round)
                lambda name: arrays[name][0],  # noqa: B023
                _label_index(self._path, low, one_hot),
            )

    def _branch(self, name: str) -> NumberBranch:
        branch = NumberBranch(self._tree[name], self._stream, self._known, name.startswith("part_is"))
        if branch.is_list != name.startswith("part_") or not branch.is_numeric:
            wanted = "a list of numbers" if name.startswith("part_") else "one number"
            raise JetDataError(f"{self._path}: branch {name} is {branch.typename}, not {wanted} per jet")
        return branch

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


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
