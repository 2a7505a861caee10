"""Writing of jet files whose bytes are the same whenever the jets are the same."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import awkward as ak
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

from jetscale.jets.datasets.jetclass import JETCLASS_BRANCHES, JETCLASS_TREE
from jetscale.simulate import SIMULATOR_VERSION

ROWS = 10_000
"""Jets in a ROOT basket or parquet row group."""
PARTS = "part_"
ROOT_DATE = (1995 - 1995) << 26 | 1 << 22 | 1 << 17
"""1 January 1995 in ROOT's packed form, its earliest date: every file has this one."""
ROOT_UUID = uuid.UUID(int=0)
ORIGIN = {"made_by": "jetscale.simulate", "simulator_version": str(SIMULATOR_VERSION)}
"""Origin of the jets, in the metadata of each file; readers of the columns ignore it."""


def write_jets(path: Path, jets: pa.Table) -> None:
    """Write a ROOT or parquet file, by the suffix of `path`.

    Both contain the simulator's version: ROOT in the title of the tree, parquet in the metadata of the
    schema.

    Parameters
    ----------
    path : file to write, ``.root`` or ``.parquet``
    jets : table of the published columns
    """
    if path.suffix == ".root":
        _write_root(path, jets)
    else:
        named = jets.replace_schema_metadata({f"jetscale.{key}": value for key, value in ORIGIN.items()})
        pq.write_table(named, path.absolute(), compression="zstd", row_group_size=ROWS)


def _write_root(path: Path, jets: pa.Table) -> None:
    """TTree with LZ4 level 4, as published.

    uproot cannot write ``vector<float>``. Constituents become arrays of floats with one common counter branch
    ``npart``, which makes no difference to readers that select branches by name.
    """
    kinds = {name: kind.removeprefix("list<").removesuffix(">") for name, kind in JETCLASS_BRANCHES.items()}
    parts = {name: kind for name, kind in kinds.items() if name.startswith(PARTS)}
    flat = {name: kind for name, kind in kinds.items() if name not in parts}
    record = ", ".join(f"{name.removeprefix(PARTS)}: {kind}" for name, kind in parts.items())
    form = {PARTS.rstrip("_"): f"var * {{{record}}}", **flat}
    with (
        _undated(),
        path.open("w+b") as stream,
        uproot.recreate(stream, compression=uproot.LZ4(4), uuid_function=lambda: ROOT_UUID) as file,
    ):
        tree = file.mktree(
            JETCLASS_TREE,
            form,
            title=", ".join(f"{key}={value}" for key, value in ORIGIN.items()),
            counter_name=lambda counted: f"n{counted}",
            field_name=lambda outer, inner: f"{outer}_{inner}",
        )
        for start in range(0, jets.num_rows, ROWS):
            rows = ak.from_arrow(jets.slice(start, ROWS).combine_chunks())
            zipped = ak.zip({name.removeprefix(PARTS): rows[name] for name in parts})
            tree.extend({PARTS.rstrip("_"): zipped, **{name: rows[name] for name in flat}})


@contextmanager
def _undated() -> Iterator[None]:
    """Replace the date in everything that uproot writes; it takes the time from the clock."""
    kept = uproot._util.datetime_to_code
    uproot._util.datetime_to_code = lambda _: ROOT_DATE
    try:
        yield
    finally:
        uproot._util.datetime_to_code = kept
