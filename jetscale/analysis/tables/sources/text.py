"""Tables in text files: where the header is, what separates columns, which marks numbers have, and labels.

Semicolons between the columns and commas in the numbers are recognised where they can mean one thing only.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LOOK = 200  # lines that are looked at before a file is read
MISSING = ["", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "-NaN", "-nan"]
"""What a cell without a value holds. None and null are not among them: a subset may be called so."""

_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")  # 1,000 or 1,000,000, or a decimal comma
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d*([eE][+-]?\d+)?")
_NUMBERS_ONLY = re.compile(r"[\d\s.,;|+\-\"eE]*")


@dataclass(frozen=True)
class Layout:
    """How a text file is read.

    Attributes
    ----------
    encoding : of its characters.
    skip : lines before the header: comments, and blank ones.
    header : the line with the names.
    separator, decimal, thousands : marks between columns and in numbers.
    """

    encoding: str
    skip: int
    header: str
    separator: str
    decimal: str = "."
    thousands: str | None = None

    @property
    def names(self) -> list[str]:
        """Names in the header, as they are written; a comment's mark before the first is no part of it."""
        return [name.strip() for name in next(csv.reader([self.header], delimiter=self.separator))]

    def options(self) -> dict[str, Any]:
        """Arguments of `pandas.read_csv`."""
        return {
            "sep": self.separator,
            "skiprows": self.skip,
            "skipinitialspace": True,
            "index_col": False,
            "encoding": self.encoding,
        }


def layout_of(path: Path) -> Layout:
    """Look at the first lines of a file.

    Raises
    ------
    UsageError
        Two marks could separate its columns, or commas in its numbers could mean two things.
    """
    encoding = _encoding(path)
    lines = _lines(path, encoding)
    at = _header(lines)
    header = lines[at].lstrip("# \t")
    separator = _separator(path, header)
    found = Layout(encoding, at, header, separator)
    if separator == ",":
        return found
    return Layout(encoding, at, header, separator, *_marks(path, lines[at + 1 :], separator))


def read(path: Path, layout: Layout) -> pd.DataFrame:
    """Read the table; lines without any value are left out, and the others keep their numbers.

    Raises
    ------
    UsageError
        Rows that are longer than the header.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header, cut by pandas
        try:
            frame: pd.DataFrame = pd.read_csv(
                path,
                decimal=layout.decimal,
                thousands=layout.thousands,
                low_memory=False,
                **layout.options(),
            )
        except pd.errors.ParserWarning as error:
            raise UsageError(
                f"{path}: rows have more fields than the {len(layout.names)} names of the first"
                " line; are there decimal commas in it? Separate the columns by semicolons then"
            ) from error
    if layout.names[0] and str(frame.columns[0]).startswith("#"):
        frame = frame.rename(columns={frame.columns[0]: layout.names[0]})
    frame = frame.dropna(how="all").rename(columns=lambda name: str(name).strip())
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    if layout.separator != "," and (layout.decimal, layout.thousands) == (".", None):
        _refuse_commas(path, frame[texts])
    empty = [name for name in texts if frame[name].isna().any()]
    empty += [name for name in frame.columns if name not in texts and frame[name].isna().all()]
    written = as_written(path, layout, empty) if empty else frame
    for name in empty:
        frame[name] = written[name].loc[frame.index]
    return frame


def _refuse_commas(path: Path, texts: pd.DataFrame) -> None:
    """Refuse numbers with a comma below the lines that were looked at: nothing tells what it means."""
    for name in texts:
        doubtful = texts[name][texts[name].astype(str).str.fullmatch(_GROUPED.pattern)]
        if len(doubtful):
            raise UsageError(_two_meanings(path, str(doubtful.iloc[0])))


def _two_meanings(path: Path, text: str) -> str:
    return (
        f"{path}: {text!r} could be {text.replace(',', '.', 1)} or {text.replace(',', '')};"
        " write the numbers with a decimal point"
    )


def as_written(path: Path, layout: Layout, names: Collection[str]) -> pd.DataFrame:
    """Columns as the text that the file holds: 01 and 1.10 are not the numbers 1 and 1.1, None is a word.

    Parameters
    ----------
    path, layout : the file.
    names : of the columns.

    Returns
    -------
    Its rows as `read` numbers them, NaN where a cell holds nothing.
    """
    import pandas as pd

    first, wanted = layout.names[0], set(names)

    def plain(name: object) -> str:
        return first if str(name).startswith("#") else str(name).strip()

    found: pd.DataFrame = pd.read_csv(
        path,
        dtype=str,
        keep_default_na=False,
        na_values=MISSING,
        usecols=lambda name: plain(name) in wanted,
        **layout.options(),
    )
    return found.rename(columns=plain)


def _encoding(path: Path) -> str:
    """UTF-16 where the file begins with its mark (Excel's Unicode text), else UTF-8."""
    with path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _lines(path: Path, encoding: str) -> list[str]:
    """First lines of the file, compressed or not, as pandas decodes them."""
    import pandas as pd

    raw = pd.read_csv(
        path,
        sep="\x1f",  # in no table: every line is one field
        header=None,
        nrows=LOOK,
        dtype=str,
        encoding=encoding,
        quoting=3,
        keep_default_na=False,
        skip_blank_lines=False,
    )
    return [str(line) for line in raw[0]]


def _header(lines: list[str]) -> int:
    """Number of the line with the names: the first that is no comment, or the comment above bare numbers."""
    filled = [at for at, line in enumerate(lines) if line.strip()]
    first = next((at for at in filled if not lines[at].lstrip().startswith("#")), 0)
    comments = [at for at in filled if at < first]
    return comments[-1] if comments and _NUMBERS_ONLY.fullmatch(lines[first]) else first


def _separator(path: Path, header: str) -> str:
    """The one separator of the header line; a comma where there is only one column."""
    bare = re.sub(r'"[^"]*"', "", header)
    found = [mark for mark in SEPARATORS if mark in bare]
    if len(found) > 1 and {";", "\t"} & set(found):
        found = [mark for mark in found if mark in (";", "\t")]  # names may hold commas and bars
    if len(found) > 1:
        named = " and ".join(SEPARATORS[mark] for mark in found)
        raise UsageError(
            f"{path}: {named} in its first line {header[:80]!r}: which of them separates the columns"
            " cannot be told; quote the names that hold the other, or save it as .parquet"
        )
    return found[0] if found else ","


def _marks(path: Path, lines: list[str], separator: str) -> tuple[str, str | None]:
    """Decimal mark and thousands separator of a file whose columns are not separated by commas."""
    fields = [field.strip().strip('"') for line in lines for field in line.split(separator)]
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
        raise UsageError(_two_meanings(path, commas[0]))
    return ".", "," if grouped else None
