"""Queries that select rows: pandas' own, less two of its silences.

Pandas takes numbers for names of rows (``where="seed"``), and a text is never equal to a number: where seeds
are text, ``seed != 3`` would leave out nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

_QUOTED = re.compile(r"""('[^']*'|"[^"]*")""")


def rows_where(frame: pd.DataFrame, where: str, source: str) -> pd.DataFrame:
    """Rows that the query `where` selects; all where it is empty.

    Parameters
    ----------
    frame : rows.
    where : a pandas query, true or false for each row.
    source : where they come from, for messages.

    Raises
    ------
    UsageError
        Not a query of its columns, or one that selects nothing.
    """
    if not where:
        return frame
    try:
        chosen = _chosen(frame, where)
    except Exception as error:  # whatever the parser and the evaluation of the query raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{source}: where={where!r} is not a query of its columns: {reason}") from error
    if not len(chosen):
        raise UsageError(f"{source}: where={where!r} selects none of {len(frame)} rows")
    return chosen


def _chosen(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Rows for which the query is true.

    Raises
    ------
    ValueError
        It is not true or false for every row, or compares a text with a number.
    """
    import pandas as pd

    for name, shown in _compared(where):
        if name in frame.columns and (other := _other_kind(frame[name], shown)):
            raise ValueError(f"{name} holds {other}")
    truth = frame.eval(where, engine="python")
    if not isinstance(truth, pd.Series) or len(truth) != len(frame):
        raise ValueError("it is not true or false for each row (equal is ==)")
    if not pd.api.types.is_bool_dtype(truth):
        example = truth.iloc[0] if len(truth) else None
        raise ValueError(f"it is {example} for the first row, not true or false; compare it, as in x == 0")
    return frame.loc[truth]


def _other_kind(column: pd.Series[Any], compared: list[object]) -> str:
    """What a column holds, if nothing that it is compared with can be equal to it; else ""."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return ""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(column.cat.categories)
    numbers = all(isinstance(one, int | float) for one in compared)
    texts = all(isinstance(one, str) for one in compared)
    if numbers and pd.api.types.infer_dtype(column, skipna=True) == "string":
        return f"text: compare it with {', '.join(repr(str(one)) for one in compared)}, in quotes"
    if texts and pd.api.types.is_numeric_dtype(column):
        return f"numbers: compare it with {', '.join(map(str, compared))}, without quotes"
    return ""


def _compared(where: str) -> Iterator[tuple[str, list[object]]]:
    """Columns that a query compares with constants, and these; none where Python cannot parse it."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        names[f"column_{len(names)}_"] = found[1]
        return f"column_{len(names) - 1}_"

    # as pandas reads it: names in backticks, and & and | as words, which bind less than comparisons
    parts = _QUOTED.split(re.sub(r"`([^`]*)`", named, where))
    parts[::2] = [part.replace("&", " and ").replace("|", " or ") for part in parts[::2]]
    try:
        tree = ast.parse("".join(parts).strip(), mode="eval")
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for one, other in [pair for both in pairwise(sides) for pair in (both, both[::-1])]:
                if isinstance(one, ast.Name) and (constants := _constants(other)):
                    yield names.get(one.id, one.id), constants


def _constants(node: ast.expr) -> list[object]:
    """Values of a constant, or of a list of constants; none of anything else."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return []
    values = list(value) if isinstance(value, list | tuple | set) else [value]
    return values if all(isinstance(one, str | int | float) for one in values) else []
