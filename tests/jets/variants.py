"""Variants of one ROOT file, as people have them: its columns changed and written again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

BY_ROOT = Path(__file__).with_name("data") / "HToBB_000.root"
"""30 random jets by ROOT 6.40 (by_root.py beside it)."""


def columns_of(path: Path = BY_ROOT) -> dict[str, Any]:
    """Every branch by name, without counters."""
    with uproot.open(path) as file:
        tree = file["tree"]
        return {name: tree[name].array() for name in tree.keys() if not name.startswith("n")}  # noqa: SIM118 (no dict)


def write_tree(file: Any, columns: Mapping[str, Any], name: str = "tree") -> None:
    """Columns as a TTree of an open file."""
    file.mktree(name, {column: ak.type(values).content for column, values in columns.items()})
    file[name].extend(columns)


def write_root(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """Columns as TTree ``tree`` of a new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path, **options) as file:
        write_tree(file, columns)
    return path


def reordered(columns: Mapping[str, Any], order: Any) -> dict[str, Any]:
    """Constituents of every jet in another order: `order` is jagged, as ak.argsort gives it."""
    return {name: values[order] if name.startswith("part_") else values for name, values in columns.items()}


def lengthened(columns: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Constituents of every jet again and again, `n` in all, each copy with a little less momentum."""
    counts = ak.num(columns["part_px"])
    times = -(-n // ak.min(counts))
    made = dict(columns)
    for name in (name for name in columns if name.startswith("part_")):
        values = columns[name]
        shrinks = name in ("part_px", "part_py", "part_pz", "part_energy")
        copies = [values * np.float32(0.97**k) if shrinks else values for k in range(times)]
        made[name] = ak.values_astype(ak.concatenate(copies, axis=1)[:, :n], _number(values))
    return made


def _number(values: Any) -> Any:
    return np.asarray(ak.flatten(values)).dtype


def pt_squared(columns: Mapping[str, Any]) -> Any:
    """pT squared of every constituent in double precision, where it is exact."""
    px, py = (ak.values_astype(columns[f"part_{name}"], np.float64) for name in ("px", "py"))
    return px**2 + py**2
