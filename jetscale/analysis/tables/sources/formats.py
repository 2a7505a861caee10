"""Files of tables to frames, by pandas' own readers: text, JSON, parquet and Excel.

Semicolons between the columns and commas in the numbers are recognised where they can mean one thing only.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError, install_extra
from jetscale.runs import parquet

if TYPE_CHECKING:
    import pandas as pd

KINDS = ".csv, .tsv, .jsonl, .ndjson, .json, .xlsx or .parquet"
EXCEL = {".xlsx", ".xlsm"}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LOOK = 200  # lines that are looked at before a file is read

_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+")  # 1,000 or 1,000,000, or a decimal comma and three digits
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d*([eE][+-]?\d+)?")


def read(path: Path) -> pd.DataFrame:
    """Read a table of any of the known kinds.

    Raises
    ------
    UsageError
        No such file, another kind, a file that its reader refuses, or commas that could mean two things.
    """
    import pandas as pd

    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    kinds = {suffix.lower() for suffix in path.suffixes}
    try:
        if kinds & {".parquet", ".pq"}:
            parquet.check(path)
            return pd.read_parquet(path)
        if kinds & {".jsonl", ".ndjson", ".json"}:
            return _read_json(path, lines=".json" not in kinds)
        if kinds & {".csv", ".tsv", ".txt"}:
            return _read_text(path)
        if kinds & EXCEL:
            return _read_excel(path)
    except DamagedFile as error:
        raise UsageError(f"{error}; put back an undamaged copy of it") from error
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:  # an .xlsx is a zip of named parts
        raise UsageError(f"{path}: cannot be read as a table: {_first_line(error)}") from error
    raise UsageError(f"{path}: unknown kind of table; use {KINDS}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_json(path: Path, lines: bool) -> pd.DataFrame:
    """One JSON object a line, or (in a .json file) a list of objects."""
    import pandas as pd

    options: dict[str, Any] = {"dtype": False, "precise_float": True, "encoding": "utf-8-sig"}
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
        sheets = pd.read_excel(path, sheet_name=None, header=None, engine="openpyxl")
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


def _read_text(path: Path) -> pd.DataFrame:
    import pandas as pd

    lines = _lines(path)
    separator = _separator(path, lines[0])
    _refuse_repeated_names(path, lines[0], separator)
    decimal, thousands = ".", None
    if separator != ",":
        decimal, thousands = _marks(path, lines, separator)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header, cut by pandas
        try:
            return pd.read_csv(
                path,
                sep=separator,
                decimal=decimal,
                thousands=thousands,
                skipinitialspace=True,
                index_col=False,
                encoding="utf-8-sig",
                low_memory=False,
            )
        except pd.errors.ParserWarning as error:
            raise UsageError(
                f"{path}: rows have more fields than the {len(lines[0].split(separator))} names of the first"
                " line; are there decimal commas in it? Separate the columns by semicolons then"
            ) from error


def _lines(path: Path) -> list[str]:
    """First lines of the file, compressed or not, as pandas decodes them."""
    import pandas as pd

    raw = pd.read_csv(
        path,
        sep="\x1f",  # in no table: every line is one field
        header=None,
        nrows=LOOK,
        dtype=str,
        encoding="utf-8-sig",
        quoting=3,
        keep_default_na=False,
    )
    return [str(line) for line in raw[0]]


def _separator(path: Path, header: str) -> str:
    """The one separator of the header line; a comma where there is only one column."""
    bare = re.sub(r'"[^"]*"', "", header)
    found = [mark for mark in SEPARATORS if mark in bare]
    if len(found) > 1 and {";", "\t"} & set(found):
        found = [mark for mark in found if mark in (";", "\t")]  # names may hold commas and bars
    if len(found) > 1:
        named = " and ".join(SEPARATORS[mark] for mark in found)
        raise UsageError(
            f"{path}: {named} in its first line {header[:80]!r}: which of them separates the"
            " columns cannot be"
            " told; quote the names that hold the other, or save it as .parquet"
        )
    return found[0] if found else ","


def _refuse_repeated_names(path: Path, header: str, separator: str) -> None:
    import csv

    _refuse_repeated(path, [name.strip() for name in next(csv.reader([header], delimiter=separator))])


def _refuse_repeated(path: Path, names: Iterable[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        raise UsageError(f"{path}: two columns are called {repeated[0]!r}; give each its own name")


def _marks(path: Path, lines: list[str], separator: str) -> tuple[str, str | None]:
    """Decimal mark and thousands separator of a file whose columns are not separated by commas."""
    fields = [field.strip().strip('"') for line in lines[1:] for field in line.split(separator)]
    commas = [field for field in fields if _COMMA.fullmatch(field)]
    grouped = [field for field in fields if _GROUPED.fullmatch(field) and field.count(",") > 1]
    points = [field for field in fields if "." in field and _POINT.fullmatch(field)]
    certain = [field for field in commas if not _GROUPED.fullmatch(field)]
    if certain and (points or grouped):
        other = (points or grouped)[0]
        raise UsageError(
            f"{path}: {certain[0]!r} has a decimal comma and {other!r} has not; write all numbers one way"
        )
    if certain:
        return ",", None
    if commas and not grouped and not points:
        raise UsageError(
            f"{path}: {commas[0]!r} could be {commas[0].replace(',', '.')} or {commas[0].replace(',', '')};"
            " write the numbers with a decimal point"
        )
    return ".", "," if grouped else None
