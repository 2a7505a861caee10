"""Anybody's CSV or parquet file to a loss table: columns N, loss, and D or C; optional run, seed, subset.

A parquet file that jetscale wrote is taken as it is (`jetscale.analysis.sources.saved`).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.settings import ColumnSettings
from jetscale.analysis.sources import saved
from jetscale.analysis.table import MAX_ROWS, LossTable, checked
from jetscale.cli import UsageError
from jetscale.files import DamagedFile
from jetscale.runs import parquet

if TYPE_CHECKING:
    import pandas as pd

FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D

# usual names, compared in lower case with spaces, dashes and dots as underscores
USUAL = {
    "N": ("n", "n_params", "num_params", "params", "parameters", "model_size", "n_parameters"),
    "D": ("d", "jets", "tokens", "n_tokens", "num_tokens", "training_tokens", "samples", "dataset_size"),
    "C": ("c", "flops", "flop", "compute", "training_flop", "training_flops", "total_flops"),
    "loss": ("loss", "test_loss", "val_loss", "validation_loss", "final_loss", "eval_loss"),
    "run": ("run", "run_id", "run_name"),
    "seed": ("seed",),
    "subset": ("subset",),
}
_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmbgt]?)", re.IGNORECASE)


@dataclass
class _Reader:
    path: Path
    frame: pd.DataFrame
    names: ColumnSettings
    warnings: list[str] = field(default_factory=list)

    def column(self, symbol: str, *, required: bool) -> str | None:
        """Name of the column that holds `symbol`."""
        asked = getattr(self.names, symbol)
        present = [str(name) for name in self.frame.columns]
        if asked:
            if asked not in present:
                raise UsageError(
                    f"{self.path}: no column {asked!r} for {symbol}; columns: {', '.join(present)}"
                )
            return str(asked)
        if symbol in present:
            return symbol
        usual = [name for name in present if re.sub(r"[\s.-]+", "_", name.strip().lower()) in USUAL[symbol]]
        if len(usual) > 1:
            raise UsageError(
                f"{self.path}: {', '.join(map(repr, usual))} could all be {symbol}; say columns.{symbol}=NAME"
            )
        if usual:
            if usual[0] != symbol:
                self.warnings.append(f"column {usual[0]!r} is read as {symbol}")
            return usual[0]
        if required:
            raise UsageError(
                f"{self.path}: no column for {symbol}; say columns.{symbol}=NAME"
                f" (columns: {', '.join(present)})"
            )
        return None

    def numbers(self, symbol: str, *, required: bool = True) -> NDArray[np.float64] | None:
        """Values of the column as float64: integers overflow in 6 N D."""
        name = self.column(symbol, required=required)
        if name is None:
            return None
        series = self.frame[name]
        if series.dtype.kind in "iuf":
            return np.asarray(series, dtype=np.float64)
        return self._parsed(symbol, name)

    def _parsed(self, symbol: str, name: str) -> NDArray[np.float64]:
        values = np.empty(len(self.frame))
        suffixes = set()
        for row, text in enumerate(self.frame[name]):
            match = _NUMBER.fullmatch(str(text).strip().replace(",", "").replace("_", ""))
            if match is None:
                raise UsageError(
                    f"{self.path}: {name!r} in row {self.frame.index[row]} is {text!r}, not a number"
                    + (" with a unit this column could mean" if re.match(r"\s*[\d.]", str(text)) else "")
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
        else:
            self.warnings.append(f"{symbol}: column {name!r} holds text; its numbers were read from it")
        return values


def load(
    path: Path,
    columns: ColumnSettings | None = None,
    *,
    where: str = "",
    flops_per_param_sample: float = FLOPS_PER_PARAM_TOKEN,
) -> LossTable:
    """Read a table with named columns.

    Parameters
    ----------
    path : .csv, .tsv or .parquet (csv and tsv also compressed).
    columns : names; empty ones are looked for under their usual names. Where any is given, a file of
        jetscale's own is read as any other.
    where : pandas query that selects rows, such as ``"val_full.str.contains('c4_val') and tokens > 1e9"``.
    flops_per_param_sample : k of C = k N D, used where the table gives only one of D and C.

    Raises
    ------
    UsageError
        No such file, column or row; text in numbers; values that are not finite and positive.
    """
    names = columns or ColumnSettings()
    frame = _select(_read(path), where, path)
    if names == ColumnSettings():
        losses = saved.of_frame(frame, path)
        if losses is not None:
            return checked(replace(losses, source=f"{path} (losses of {losses.source})"))
    reader = _Reader(path, frame, names)
    N, loss = reader.numbers("N"), reader.numbers("loss")
    D, C = reader.numbers("D", required=False), reader.numbers("C", required=False)
    if N is None or loss is None or (D is None and C is None):
        raise UsageError(f"{path}: needs a column for D or C; say columns.D=NAME or columns.C=NAME")
    k = flops_per_param_sample
    with np.errstate(invalid="ignore", divide="ignore"):
        if D is None:
            assert C is not None
            D = C / (k * N)
        elif C is None:
            C = k * N * D
        else:
            k = _cost(C / (N * D), reader.warnings)
    return checked(_assemble(reader, N, D, C, loss, k))


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    kinds = path.suffixes
    try:
        if path.suffix in (".parquet", ".pq"):
            parquet.check(path)
            return pd.read_parquet(path)
        if ".csv" in kinds or ".tsv" in kinds:
            return pd.read_csv(path, sep="\t" if ".tsv" in kinds else ",", low_memory=False)
    except DamagedFile as error:
        raise UsageError(f"{error}; put back an undamaged copy of it") from error
    except (ValueError, OSError) as error:
        raise UsageError(f"{path}: cannot be read as a table: {error}") from error
    raise UsageError(f"{path}: unknown kind of table; use .csv, .tsv or .parquet")


def _select(frame: pd.DataFrame, where: str, path: Path) -> pd.DataFrame:
    frame = frame.rename(columns=str)
    if len(frame) > MAX_ROWS and not where:
        raise UsageError(
            f"{path}: {len(frame):,} rows, more than {MAX_ROWS:,}; keep the rows to fit, for instance with"
            " where=..."
        )
    return rows_where(frame, where, str(path))


def rows_where(frame: pd.DataFrame, where: str, source: str) -> pd.DataFrame:
    """Rows that the query `where` selects; all where it is empty.

    Raises
    ------
    UsageError
        Not a query of its columns, or one that selects nothing.
    """
    if not where:
        return frame
    try:
        chosen = frame.query(where, engine="python")
    except Exception as error:
        raise UsageError(f"{source}: where={where!r} is not a query of its columns: {error}") from error
    if not len(chosen):
        raise UsageError(f"{source}: where={where!r} selects none of {len(frame)} rows")
    return chosen


def _cost(ratio_P: NDArray[np.float64], warnings: list[str]) -> float:
    """K of C = k N D from a table that has all three; its spread is said when it matters."""
    usable = ratio_P[np.isfinite(ratio_P) & (ratio_P > 0)]
    if not len(usable):
        return FLOPS_PER_PARAM_TOKEN
    k = float(np.median(usable))
    spread = float(usable.max() / usable.min())
    if spread > 1.02:
        text = f"C / (N D) is not one number: median {k:.4g}, largest over smallest {spread:.3g}"
        warnings.append(text + ("; are there two units in one column?" if spread > 30 else ""))
    return k


def _assemble(
    reader: _Reader,
    N: NDArray[np.float64],
    D: NDArray[np.float64],
    C: NDArray[np.float64],
    loss: NDArray[np.float64],
    k: float,
) -> LossTable:
    import pandas as pd

    labels = {}
    for symbol in ("run", "seed", "subset"):
        name = reader.column(symbol, required=False)
        labels[symbol] = reader.frame[name].astype(str).to_numpy() if name else None
    has_runs = labels["run"] is not None
    frame = pd.DataFrame(
        {
            "run": labels["run"] if has_runs else "",
            "subset": labels["subset"] if labels["subset"] is not None else "all",
            "seed": labels["seed"] if labels["seed"] is not None else "0",
            "dim": np.nan,
            "n_params": N,
            "jets": D,
            "constituents": np.nan,
            "flops": C,
            "split": "test",
            "weights": "raw",
            "loss": loss,
            "step": D,
        },
        index=reader.frame.index,
    )
    if not has_runs:
        frame = _name_rows(frame, reader.warnings)
    settings = {key: name for key, name in asdict(reader.names).items() if name}
    source = f"{reader.path}" + (
        f" ({', '.join(f'{k}={v}' for k, v in settings.items())})" if settings else ""
    )
    return LossTable(frame, source, k, warnings=reader.warnings)


def _name_rows(frame: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Without a run column every row is a run of its own; equal rows are kept, and said."""
    key = ["subset", "n_params", "jets", "seed", "loss"]
    repeats = int(frame.duplicated(key).sum())
    if repeats:
        warnings.append(f"{repeats} rows repeat another row's N, D and loss; they are kept and count as runs")
    cells = frame.groupby(["subset", "n_params", "jets", "seed"])["loss"].agg(["min", "max", "size"])
    mixed = cells[(cells["size"] > 1) & (cells["max"] > 1.3 * cells["min"])]
    if len(mixed):
        warnings.append(
            f"{len(mixed)} cells of one N, D and seed hold losses more than 30% apart: "
            "are several evaluation sets mixed in it? select one with where=..."
        )
    frame = frame.sort_values(key, kind="stable")
    frame["run"] = [f"row {rank:07d}" for rank in range(len(frame))]
    return frame
