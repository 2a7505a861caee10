"""Which column of a table holds what, and what is in it: labels, and numbers with suffixes and units."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.settings import ColumnSettings
from jetscale.analysis.tables.sources import formats
from jetscale.analysis.tables.sources.units import named_unit
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

# usual names, compared in lower case with spaces, dashes and dots as underscores
USUAL = {
    "N": ("n", "n_params", "num_params", "params", "parameters", "model_size", "n_parameters"),
    "D": ("d", "jets", "tokens", "n_tokens", "num_tokens", "training_tokens", "samples", "dataset_size"),
    "C": ("c", "flops", "flop", "compute", "training_flop", "training_flops", "total_flops"),
    "loss": ("loss", "test_loss", "val_loss", "validation_loss", "final_loss", "eval_loss"),
    "run": ("run", "run_id", "run_name"),
    "seed": ("seed",),
    "subset": ("subset",),
    "weight": ("weight",),
    "D_pre": ("d_pre", "pretrain_jets", "pretraining_jets", "pretrain_tokens", "pretraining_tokens"),
}
LABELS = ("run", "seed", "subset")
_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?\s*[kmbgt]?", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmbgt]?)", re.IGNORECASE)


@dataclass
class Reader:
    """Reads columns by their symbol and remembers which were used.

    Attributes
    ----------
    path, frame : the table.
    names : of the columns, as far as the user gave them.
    warnings : what was read otherwise than it stands there.
    used : names of the columns that were read.
    """

    path: Path
    frame: pd.DataFrame
    names: ColumnSettings
    warnings: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def column(self, symbol: str, *, required: bool) -> str | None:
        """Name of the column that holds `symbol`; None where there is none, or it is not to be used.

        Raises
        ------
        UsageError
            No such column, or several that could be meant and differ.
        """
        asked = getattr(self.names, symbol)
        present = [str(name) for name in self.frame.columns]
        if asked:
            if asked not in present:
                raise UsageError(
                    f"{self.path}: no column {asked!r} for {symbol}; columns: {', '.join(present)}"
                )
            return self._used(str(asked))
        if asked == "" and not required:
            return None
        found = [name for name in present if name == symbol or _plain(name, symbol) in USUAL[symbol]]
        if not found:
            if required:
                raise UsageError(
                    f"{self.path}: no column for {symbol}; say columns.{symbol}=NAME"
                    f" (columns: {', '.join(present)})"
                )
            return None
        chosen = symbol if symbol in found else found[0]
        others = [repr(other) for other in found if not self._alike(chosen, other, symbol)]
        if others and chosen != symbol:
            raise UsageError(
                f"{self.path}: {', '.join(map(repr, found))} could all be {symbol}; say columns.{symbol}=NAME"
            )
        if others:  # perhaps a training loss called loss, beside val_loss
            self.warnings.append(
                f"column {chosen!r} is read as {symbol}, though {', '.join(others)} could be it too;"
                f" columns.{symbol}=NAME takes another, columns.{symbol}={symbol} this one without a warning"
            )
        if chosen != symbol:
            self.warnings.append(f"column {chosen!r} is read as {symbol}")
        return self._used(chosen)

    def _alike(self, one: str, other: str, symbol: str) -> bool:
        """Whether two columns say the same: equal numbers, or labels of the same rows."""
        import pandas as pd

        if symbol in LABELS:
            return bool((pd.factorize(self.frame[one])[0] == pd.factorize(self.frame[other])[0]).all())
        return one == other or self.frame[one].tolist() == self.frame[other].tolist()

    def _used(self, name: str) -> str:
        self.used.add(name)
        return name

    def labels(self, symbol: str) -> NDArray[np.object_] | None:
        """Names in the column, or in several ("model,seed"), of the run, seed or subset; None without one."""
        asked = getattr(self.names, symbol)
        if not asked or asked in self.frame.columns or "," not in asked:
            name = self.column(symbol, required=False)
            return None if name is None else self._text(symbol, name)
        names = [name.strip() for name in asked.split(",") if name.strip()]
        missing = [name for name in names if name not in self.frame.columns]
        if missing:
            raise UsageError(
                f"{self.path}: no column {missing[0]!r} for {symbol} (columns.{symbol}={asked!r});"
                f" columns: {', '.join(map(str, self.frame.columns))}"
            )
        self.used.update(names)
        parts = [f"{name}=" + self._text(symbol, name) for name in names]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined + "," + part
        return np.asarray(joined, dtype=object)

    def _text(self, symbol: str, name: str) -> NDArray[np.object_]:
        column = self._as_written(symbol, name)
        if column.isna().any():
            row = self.frame.index[int(np.flatnonzero(column.isna())[0])]
            raise UsageError(
                f"{self.path}: {name!r} in row {row} is empty or NA ({int(column.isna().sum())} such rows),"
                f" but it names the {symbol}: fill it in, select rows with where=..., or do without:"
                f" columns.{symbol}="
            )
        return np.asarray(column.astype(str).str.strip(), dtype=object)

    def _as_written(self, symbol: str, name: str) -> pd.Series[str]:
        """Labels that look like numbers, as the file has them: 1.1 and 1.10 may be two versions."""
        import pandas as pd

        column = self.frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            return column
        written = formats.written(self.path, [name])
        if written is None:
            return column
        text = written[name].loc[self.frame.index]
        distinct = pd.DataFrame({"number": column, "text": text.str.strip()}).drop_duplicates().dropna()
        same = distinct[distinct.duplicated("number", keep=False)].sort_values("number", kind="stable")
        if len(same):
            one, other = same["text"].iloc[:2]
            raise UsageError(
                f"{self.path}: {name!r}, which names the {symbol}, holds {one} and {other}, which are one"
                " number but may be two names; write them alike, or with a letter (v1.1 and v1.10)"
            )
        return text

    def numbers(self, symbol: str, *, required: bool = True) -> NDArray[np.float64] | None:
        """Values of the column as float64, in the unit of its name: integers overflow in 6 N D."""
        name = self.column(symbol, required=required)
        if name is None:
            return None
        series = self.frame[name]
        if series.dtype.kind in "iuf":
            return self._in_unit(symbol, name, np.asarray(series, dtype=np.float64))
        return self._parsed(symbol, name)

    def _in_unit(self, symbol: str, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values times the unit that the name of the column tells: Params (M), tokens_B, C (PFLOPs)."""
        unit = named_unit(name, symbol)
        if unit.logarithm:
            raise UsageError(
                f"{self.path}: column {name!r} holds logarithms by its name; write {symbol} itself"
            )
        largest = float(np.nanmax(values, initial=0.0)) * unit.factor
        if unit.factor == 1 or (largest > unit.most and not unit.certain):
            return values
        if largest > unit.most:
            raise UsageError(
                f"{self.path}: column {name!r} is in units of {unit.factor:g} by its name, but then {symbol}"
                f" is up to {largest:.3g}; take the unit out of the name if the numbers are plain"
            )
        self.warnings.append(f"{symbol}: column {name!r} is read in units of {unit.factor:g}, by its name")
        return values * unit.factor

    def _parsed(self, symbol: str, name: str) -> NDArray[np.float64]:
        values = np.empty(len(self.frame))
        suffixes = set()
        unit = named_unit(name, symbol)
        for row, text in enumerate(self.frame[name]):
            plain = str(text).strip().replace("_", "")
            match = _NUMBER.fullmatch(plain.replace(",", ""))
            if match is None or ("," in plain and not _THOUSANDS.fullmatch(plain)):
                raise UsageError(
                    f"{self.path}: {name!r} in row {self.frame.index[row]} is {text!r}, not a number"
                    + _hint(plain)
                )
            # 2,500 tokens are 2500; 2,500 B, or 2,500 in millions, may well be 2.5
            scaled = symbol == "loss" or match[2] or unit.factor != 1
            if plain.count(",") == 1 and scaled:
                raise UsageError(
                    f"{self.path}: {name!r} in row {self.frame.index[row]} is {text!r}, which could be"
                    f" {plain.replace(',', '.', 1)} or {plain.replace(',', '')}; write it with a"
                    " decimal point"
                )
            if match[2] and unit.factor != 1 and unit.certain:
                raise UsageError(
                    f"{self.path}: {name!r} in row {self.frame.index[row]} is {text!r}, but the name of the"
                    " column has a unit too; leave one of them out"
                )
            values[row] = float(match[1]) * _SUFFIX[match[2].lower()]
            suffixes.add(match[2].lower())
        if suffixes != {""}:
            if "" in suffixes:
                raise UsageError(
                    f"{self.path}: {name!r} mixes numbers with and without a suffix"
                    f" ({', '.join(sorted(suffixes - {''}))}); write them all one way"
                )
            self.warnings.append(
                f"{symbol}: suffixes {', '.join(sorted(suffixes)).upper()} read as powers of 1,000"
            )
            return values
        self.warnings.append(f"{symbol}: column {name!r} holds text; its numbers were read from it")
        return self._in_unit(symbol, name, values)


def _plain(name: str, symbol: str) -> str:
    """A column's name as usual names are written, without its unit."""
    return re.sub(r"[\s.-]+", "_", named_unit(name, symbol).rest.lower())


def _hint(text: str) -> str:
    """What may be wrong with a number that is not read."""
    if re.fullmatch(r"[+-]?[\d.]*,[\d,.]*(e[+-]?\d+)?\s*[kmbgt]?", text, re.IGNORECASE):
        return "; a decimal comma? Write it with a decimal point"
    return " with a unit this column could mean" if re.match(r"[\d.]", text) else ""
