"""JetClass ROOT files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from jetscale.jets.datasets.labels import JETCLASS_LABELS
from jetscale.jets.datasets.schemas import JETCLASS_TREE
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.baskets import Known, NumberBranch
from jetscale.jets.reading.locations import File
from jetscale.jets.reading.raw import RawJets, assemble


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
            self._tree = _tree(called, file)
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
        if branch.n_entries != self.n_jets:
            raise JetDataError(
                f"{self._path}: branch {name} has {branch.n_entries} entries, {JETCLASS_TREE!r} has "
                f"{self.n_jets}; write the tree again with every branch filled for every jet"
            )
        return branch

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


def _tree(called: File, file: Any) -> Any:
    """The TTree with the jets.

    Raises
    ------
    JetDataError
        There is none, or an older cycle of its name holds other jets, which nothing would read.
    """
    kinds = {str(name): str(kind) for name, kind in file.classnames(recursive=False).items()}
    cycles = [name for name in kinds if name.partition(";")[0] == JETCLASS_TREE]
    if not cycles:
        held = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "nothing"
        raise JetDataError(
            f"{called}: no TTree {JETCLASS_TREE!r}; it holds {held}; the jets must be in a TTree of that name"
        )
    newest, *older = sorted(cycles, key=lambda name: -int(name.partition(";")[2]))
    if "RNTuple" in kinds[newest]:
        raise JetDataError(
            f"{called}: {JETCLASS_TREE!r} is an RNTuple, not a TTree: write it with mktree "
            "(`file.mktree(name, types)`, then `extend`, in uproot; `file[name] = ...` makes an RNTuple)"
        )
    tree = file[newest]
    if not isinstance(tree, uproot.TTree):
        raise JetDataError(f"{called}: {JETCLASS_TREE!r} is a {kinds[newest]}, not a TTree with jets")
    for name in older:
        if not _is_earlier_state(file[name], tree):
            raise JetDataError(
                f"{called}: {name} and {newest} hold different jets, and only one of them would be read; "
                "write each to a file with its own number, or all to one tree"
            )
    return tree


def _is_earlier_state(older: Any, newest: Any) -> bool:
    """Whether a cycle is what ROOT kept of the same tree while it was filled."""
    if not isinstance(older, uproot.TTree):
        return True
    name = next((name for name in ("jet_pt", *older.keys()) if name in older and name in newest), None)
    if name is None or older.num_entries > newest.num_entries:
        return bool(older.num_entries == 0)
    first, same = older[name].array(), newest[name].array(entry_stop=older.num_entries)
    equal: bool = ak.array_equal(first, same, dtype_exact=False, equal_nan=True)
    return equal


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
