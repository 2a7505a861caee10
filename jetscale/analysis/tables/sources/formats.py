"""Files of tables to frames, by pandas' own readers: text, JSON, parquet and Excel."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.analysis.tables.sources import text
from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError, install_extra
from jetscale.runs import parquet

if TYPE_CHECKING:
    import pandas as pd

KINDS = ".csv, .tsv, .jsonl, .ndjson, .json, .xlsx or .parquet"
TEXT = {".csv", ".tsv", ".txt"}
EXCEL = {".xlsx", ".xlsm"}
COMPRESSED = {".gz", ".bz2", ".zip", ".xz", ".zst"}


def kind_of(path: Path) -> str:
    """What the name ends in, compression left out: .csv of runs.json.v2.csv.gz."""
    ends = [suffix.lower() for suffix in path.suffixes]
    return (ends[-2:-1] if ends[-1:] and ends[-1] in COMPRESSED else ends[-1:] or [""])[0]


def read(path: Path) -> pd.DataFrame:
    """Read a table of any of the known kinds.

    Parameters
    ----------
    path : of the file.

    Returns
    -------
    Its rows with names without spaces at their ends, numbered by an index without repeats; an index that had
    a name is a column.

    Raises
    ------
    UsageError
        No such file, another kind, a file that its reader refuses, or commas that could mean two things.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    kind = kind_of(path)
    try:
        frame = _read(path, kind)
    except DamagedFile as error:
        raise UsageError(f"{error}; put back an undamaged copy of it") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: cannot be read as a table: it is not UTF-8 text; save it as UTF-8"
        ) from error
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:  # an .xlsx is a zip of named parts
        raise UsageError(f"{path}: cannot be read as a table: {_first_line(error)}") from error
    frame = _index_as_columns(frame)
    frame = frame.rename(columns=lambda name: str(name).strip())
    _refuse_repeated(path, frame.columns)
    return frame


def written(path: Path, names: Collection[str]) -> pd.DataFrame | None:
    """Columns of a text file as they are written, by the rows of `read`; None of files that keep types.

    Parameters
    ----------
    path : of the file.
    names : of the columns.
    """
    return text.as_written(path, text.layout_of(path), names) if kind_of(path) in TEXT else None


def _read(path: Path, kind: str) -> pd.DataFrame:
    import pandas as pd

    if kind in {".parquet", ".pq"}:
        parquet.check(path)
        return pd.read_parquet(path)
    if kind in {".jsonl", ".ndjson", ".json"}:
        return _read_json(path, lines=kind != ".json")
    if kind in TEXT:
        layout = text.layout_of(path)
        _refuse_repeated(path, layout.names)
        return text.read(path, layout)
    if kind in EXCEL:
        return _read_excel(path)
    raise UsageError(f"{path}: unknown kind of table; use {KINDS}")


def _index_as_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Make columns of an index with names (N and D after a groupby); number rows anew where they repeat."""
    named = [str(name) for name in frame.index.names if name is not None and name not in frame.columns]
    if not named and frame.index.is_unique and frame.index.nlevels == 1:
        return frame
    facts, levels = frame.attrs, {name: frame.index.get_level_values(name) for name in named}
    frame = frame.reset_index(drop=True)
    for at, (name, values) in enumerate(levels.items()):
        frame.insert(at, name, values.to_numpy())
    frame.attrs = facts
    return frame


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_json(path: Path, lines: bool) -> pd.DataFrame:
    """One JSON object a line, or (in a .json file) a list of objects."""
    import pandas as pd

    options: dict[str, Any] = {
        "dtype": False,
        "precise_float": True,
        "encoding": "utf-8-sig",
    }
    try:
        found: pd.DataFrame = pd.read_json(path, lines=lines, **options)
    except ValueError:
        if lines:
            raise
        found = pd.read_json(path, lines=True, **options)
    return found


def _read_excel(path: Path) -> pd.DataFrame:
    """The one sheet of a workbook that holds anything, its names in the first row."""
    import pandas as pd

    try:
        sheets = pd.read_excel(
            path,
            sheet_name=None,
            header=None,
            engine="openpyxl",
            keep_default_na=False,
            na_values=text.MISSING,
        )
    except ImportError as error:
        raise UsageError(
            f"{path}: Excel files are read with openpyxl, which is not installed: "
            f"{install_extra('excel')}, or save the sheet as .csv"
        ) from error
    filled = {name: cells for name, cells in sheets.items() if not cells.empty}
    if len(filled) != 1:
        found = (
            f"{len(filled)} sheets that hold something ({', '.join(filled)})" if filled else "nothing in it"
        )
        raise UsageError(f"{path}: {found}; a table is one sheet: save the one to fit as .csv")
    (cells,) = filled.values()
    names = ["" if pd.isna(name) else str(name).strip() for name in cells.iloc[0]]
    if "" in names and cells.iloc[1:, names.index("")].notna().any():
        raise UsageError(
            f"{path}: column {names.index('') + 1} has no name in the first row; name every column there"
        )
    _refuse_repeated(path, names)
    kept = [at for at, name in enumerate(names) if name]
    frame = cells.iloc[1:, kept].dropna(how="all").infer_objects()
    return frame.set_axis([names[at] for at in kept], axis=1).reset_index(drop=True)


def _refuse_repeated(path: Path, names: Iterable[str]) -> None:
    """Refuse two columns of one name."""
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        raise UsageError(f"{path}: two columns are called {repeated[0]!r}; give each its own name")
