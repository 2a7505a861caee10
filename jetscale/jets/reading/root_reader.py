"""ROOT files with a TTree of lists of numbers per jet and one-hot labels, as those of JetClass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import File
from jetscale.jets.reading.raw import Array, RawJets, as_stored, assemble


class RootReader:
    """The TTree of one open file.

    Parameters
    ----------
    path : the file
    called : the name for errors
    tree : name of the TTree
    labels : names of the labels; each is a branch ``label_NAME`` that is 1 for its jets and 0 for others
    """

    def __init__(self, path: Path, called: File, tree: str, labels: Sequence[str]) -> None:
        self._path = called
        self._name, self._labels = tree, tuple(labels)
        with ExitStack() as opened:
            # uproot's default hands every read to a thread of fsspec, and waits for it
            file = opened.enter_context(
                uproot.open(path, handler=uproot.MultithreadedFileSource, use_threads=False)
            )
            end = int(file.file.fEND)
            size = path.stat().st_size
            if size < end:  # uproot reads on as long as the lost bytes are not asked for
                raise JetDataError(
                    f"{called}: truncated, {size} of {end} bytes; download or simulate it again"
                )
            self._tree = _tree(called, file, tree)
            self.n_jets = int(self._tree.num_entries)
            self._opened = opened.pop_all()

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets of an entry range, at most `step` at a time.

        Parameters
        ----------
        columns : published names of columns
        start, stop : entry numbers, `stop` exclusive
        step : most jets at a time
        """
        for arrays in self._arrays([*columns, *self._branches], start, stop, step):
            flat = {name: as_stored(arrays[name]) for name in arrays if not name.startswith("part_")}
            raw = assemble(
                self._path,
                start,
                columns,
                lambda name: arrays[name],  # noqa: B023 (called before the next round)
                lambda name: flat[name],  # noqa: B023 (the same)
                label_index(self._path, start, flat, self._labels),
            )
            yield raw
            start += raw.n_jets

    def _arrays(self, wanted: Sequence[str], start: int, stop: int, step: int) -> Iterator[dict[str, Any]]:
        missing = sorted(set(wanted) - set(self._tree.keys()))
        if missing:
            raise JetDataError(f"{self._path}: no branch {', '.join(missing)} in {self._name!r}")
        kinds = {name: self._checked_kind(name) for name in wanted}
        yield from self._tree.iterate(
            kinds, entry_start=start, entry_stop=stop, step_size=step, library="np", how=dict
        )

    def leave_labels_out(self) -> bool:
        """Read no labels from now on, if the file has none; returns whether."""
        if set(self._branches) & set(self._tree.keys()):
            return False
        self.ignore_labels()
        return True

    def ignore_labels(self) -> None:
        """Read no labels from now on."""
        self._labels = ()

    def check_labels(self, step: int) -> None:
        """Read the labels of all jets alone, at most `step` at a time.

        Raises
        ------
        JetDataError
            Some are missing or cannot be used.
        """
        start = 0
        for arrays in self._arrays(self._branches, 0, self.n_jets, step):
            flat = {name: as_stored(values) for name, values in arrays.items()}
            label_index(self._path, start, flat, self._labels)
            start += len(flat[self._branches[0]])

    @property
    def _branches(self) -> list[str]:
        return [f"label_{name}" for name in self._labels]

    def _checked_kind(self, name: str) -> Any:
        """How to read a branch of numbers per constituent, or of one number per jet, as its name says."""
        branch = self._tree[name]
        kind = branch.interpretation
        is_list = isinstance(kind, uproot.AsJagged)
        content = kind.content if is_list else kind
        plain = isinstance(content, uproot.AsDtype) and content.inner_shape == ()
        if is_list != name.startswith("part_") or not plain or content.from_dtype.kind not in "biuf":
            wanted = "a list of numbers" if name.startswith("part_") else "one number"
            raise JetDataError(f"{self._path}: branch {name} is {branch.typename}, not {wanted} per jet")
        if branch.num_entries != self.n_jets:
            raise JetDataError(
                f"{self._path}: branch {name} has {branch.num_entries} entries, {self._name!r} has "
                f"{self.n_jets}; write the tree again with every branch filled for every jet"
            )
        return Lists(kind.content, kind.header_bytes, kind.typename) if is_list else kind

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


class Lists(uproot.AsJagged):  # type: ignore[misc]
    """A list of numbers per jet as offsets from 0, (B + 1,) int64, and values, (T,).

    uproot's own way makes an awkward array of each branch, which takes as long as all the rest of reading.
    """

    def final_array(
        self,
        basket_arrays: Mapping[int, Any],
        entry_start: int,
        entry_stop: int,
        entry_offsets: Sequence[int],
        library: Any,
        branch: Any,
        options: Any,
    ) -> tuple[npt.NDArray[np.int64], Array]:
        """Join what several baskets hold of the entries.

        Parameters
        ----------
        basket_arrays : offsets and big-endian values of each basket that holds some, by its number
        entry_start, entry_stop : entry numbers, `entry_stop` exclusive
        entry_offsets : first entry of each basket, and the end
        library, branch, options : not looked at
        """
        del library, branch, options
        offsets = np.zeros(entry_stop - entry_start + 1, np.int64)
        parts = []
        for number, basket in sorted(basket_arrays.items()):
            first = entry_offsets[number]
            low, high = max(entry_start, first), min(entry_stop, entry_offsets[number + 1])
            own = basket.offsets[low - first : high - first + 1]
            parts.append(basket.content[own[0] : own[-1]])
            before = offsets[low - entry_start]
            offsets[low - entry_start + 1 : high - entry_start + 1] = own[1:] - own[0] + before
        values = np.concatenate(parts, dtype=self.content.to_dtype)
        return offsets, as_stored(values)


def _tree(called: File, file: Any, tree_name: str) -> Any:
    """The TTree with the jets.

    Raises
    ------
    JetDataError
        There is none, or an older cycle of its name holds other jets, which nothing would read.
    """
    kinds = {str(name): str(kind) for name, kind in file.classnames(recursive=False).items()}
    cycles = [name for name in kinds if name.partition(";")[0] == tree_name]
    if not cycles:
        held = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "nothing"
        raise JetDataError(
            f"{called}: no TTree {tree_name!r}; it holds {held}; the jets must be in a TTree of that name"
        )
    newest, *older = sorted(cycles, key=lambda name: -int(name.partition(";")[2]))
    if "RNTuple" in kinds[newest]:
        raise JetDataError(
            f"{called}: {tree_name!r} is an RNTuple, not a TTree: write it with mktree "
            "(`file.mktree(name, types)`, then `extend`, in uproot; `file[name] = ...` makes an RNTuple)"
        )
    tree = file[newest]
    if not isinstance(tree, uproot.TTree):
        raise JetDataError(f"{called}: {tree_name!r} is a {kinds[newest]}, not a TTree with jets")
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


def label_index(
    path: File, entry: int, flat: Mapping[str, Array], labels: Sequence[str]
) -> npt.NDArray[np.uint8] | None:
    """Index of the one label that is set.

    Parameters
    ----------
    path, entry : the file, and the entry number of the first jet, for errors
    flat : (B,) column ``label_NAME`` for each label, published as float, bool or int32
    labels : their names; empty where there are none

    Returns
    -------
    (B,) uint8; None without labels.

    Raises
    ------
    JetDataError
        A jet has not exactly one label.
    """
    if not labels:
        return None
    one_hot = np.stack([flat[f"label_{name}"].astype(np.float32) for name in labels], axis=1)
    good = ((one_hot == 0) | (one_hot == 1)).all(axis=1) & (one_hot.sum(axis=1) == 1)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        found = {name: float(value) for name, value in zip(labels, one_hot[at], strict=True) if value != 0}
        raise JetDataError(f"{path}: entry {entry + at}: labels are not one-hot, non-zero are {found}")
    index: npt.NDArray[np.uint8] = one_hot.argmax(axis=1).astype(np.uint8)
    return index
