"""What a fit returns, and results.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.ties import TIE
from jetscale.common.files import write_json

if TYPE_CHECKING:
    from jetscale.analysis.fitting.joint import Draws, Task
    from jetscale.analysis.fitting.surface import Surfaces
    from jetscale.analysis.fitting.surface_fit import Certificate
    from jetscale.analysis.tables.loss_table import LossTable
    from jetscale.analysis.tables.test_blocks import BlockLosses, Key

Array = NDArray[np.float64]

Scale = Literal["linear", "log", "logit"]
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Quantity:
    """A number with its standard deviation and 95% interval; None where they cannot be given."""

    value: float | None
    sd: float | None = None
    ci95: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.sd is None or self.ci95 is None or not self.sd > 1e-9 * abs(self.value):
            return f"{self.value:.4g}"
        if self.sd > self.value > 0 and self.ci95[0] > 0:  # known to a factor only: its logarithm and error
            half = 0.5 * float(np.log(self.ci95[1] / self.ci95[0])) / 1.96
            ends = f"[{self.ci95[0]:.3g}, {self.ci95[1]:.3g}]"
            return f"exp({float(np.log(self.value)):.2g} ± {half:.2g}) {ends}"
        digits = max(0, 1 - int(np.floor(np.log10(self.sd)))) if self.sd < abs(self.value) * 10 else 3
        if digits > 8 or abs(self.value) >= 1e6:
            return f"{self.value:.4g} ± {self.sd:.2g} [{self.ci95[0]:.4g}, {self.ci95[1]:.4g}]"
        low, high = (f"{end:.{digits}f}" for end in self.ci95)
        return f"{self.value:.{digits}f} ± {self.sd:.{digits}f} [{low}, {high}]"

    def rounded(self, digits: int) -> Quantity:
        """Keep so many significant digits; no value for 0."""
        if digits < 1 or self.value is None:
            return Quantity(None)
        value, *more = (
            float(f"{number:.{digits}g}")
            for number in (self.value, *(() if self.ci95 is None else (self.sd, *self.ci95)))
        )
        return Quantity(value, more[0], (more[1], more[2])) if more else Quantity(value)

    def to_json(self) -> dict[str, Any]:
        """Return {"value", "sd", "ci95"}."""
        return {"value": self.value, "sd": self.sd, "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True)
class SubsetFit:
    """One subset's fits.

    Attributes
    ----------
    name : subset.
    n_runs, n_sizes, n_points : what was fitted.
    approach1, approach2, approach3 : quantities by name (a, b, ...); a value is None where the data do not
        determine it, and `warnings` says why.
    method, dof : model of errors behind sd and ci95, and its degrees of freedom.
    errors : the same quantities under other models of errors, by method ("test_jets", "profile").
    certificate : of approach 3; None where it was not fitted.
    details : per-approach facts that are not quantities (slices, envelope, lack of fit, ...).
    warnings : what a reader must know.
    surface : approach 3's fit, whatever its parameters are called above; None where it was not fitted.
    """

    name: str
    n_runs: int
    n_sizes: int
    n_points: int
    approach1: dict[str, Quantity]
    approach2: dict[str, Quantity]
    approach3: dict[str, Quantity]
    method: str
    dof: float
    errors: dict[str, dict[str, Quantity]]
    certificate: Certificate | None
    details: dict[str, Any]
    warnings: list[str]
    draws: Draws = field(repr=False, default_factory=dict)
    task: Task | None = field(repr=False, default=None)
    surface: Surfaces | None = field(repr=False, default=None)

    def __str__(self) -> str:
        counts = f"{self.n_runs} runs, {self.n_sizes} sizes, {self.n_points} points"
        lines = [f"{self.name}: {counts}; errors: {self.method}"]
        for number in (1, 2, 3):
            for name in ("a", "b"):
                quantity = self.approach(number).get(name)
                if quantity is not None:
                    lines.append(f"  approach {number}  {name} = {quantity}")
        lines += [
            f"  approach 3  {name} = {self.approach3[name]}"
            for name in ("L_inf", "A", "B", "alpha", "beta")
            if name in self.approach3
        ]
        return "\n".join(lines + [f"  warning: {text}" for text in self.warnings])

    def approach(self, number: int) -> dict[str, Quantity]:
        """Quantities of approach 1, 2 or 3."""
        return {1: self.approach1, 2: self.approach2, 3: self.approach3}[number]

    def to_json(self) -> dict[str, Any]:
        """Entry of results.json."""
        certificate = None if self.certificate is None else asdict(self.certificate)
        return {
            "runs": self.n_runs,
            "sizes": self.n_sizes,
            "points": self.n_points,
            "approach1": _quantities(self.approach1) | self.details.get("approach1", {}),
            "approach2": _quantities(self.approach2) | self.details.get("approach2", {}),
            "approach3": _quantities(self.approach3)
            | {"certificate": certificate}
            | self.details.get("approach3", {}),
            "method": self.method,
            "dof": self.dof,
            "errors": {method: _quantities(group) for method, group in self.errors.items()},
            "warnings": self.warnings,
        } | {key: value for key, value in self.details.items() if not key.startswith("approach")}


@dataclass(frozen=True)
class FitResult:
    """Everything `fit` found; prints as a table.

    Attributes
    ----------
    subsets : one fit a subset.
    differences : "X - Y" to quantities by name ("approach3.a"), from paired replicates.
    settings : what was asked, as plain values.
    warnings : of the table and of the comparison; each subset has its own too.
    losses : the loss table that was fitted.
    details : tables that concern all subsets (multiverse, hold-out).
    """

    subsets: dict[str, SubsetFit]
    differences: dict[str, dict[str, Quantity]]
    settings: dict[str, Any]
    warnings: list[str]
    losses: LossTable = field(repr=False)
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [str(subset) for subset in self.subsets.values()]
        for pair, quantities in self.differences.items():
            shown = (f"{name} {quantities[name]}" for name in quantities if name.endswith(".a"))
            lines.append(f"{pair}: " + ", ".join(shown))
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def fitted_blocks(self) -> BlockLosses | None:
        """Block losses of the weights that were fitted."""
        from jetscale.analysis.tables.selection import of_weights
        from jetscale.analysis.tables.test_blocks import keys_of

        if self.losses.blocks is None:
            return None
        keys: set[Key] = set()
        for frame in self.losses.groups().values():
            rows = of_weights(frame, self.settings["weights"], self.losses)
            keys.update(keys_of(rows))
        return self.losses.blocks.only(keys)

    def to_json(self) -> dict[str, Any]:
        """Content of results.json."""
        from jetscale import __version__

        return {
            "version": __version__,
            "format": FORMAT_VERSION,
            "source": self.losses.source,
            "sample": self.losses.sample,
            "flops_per_param_sample": self.losses.flops_per_param_sample,
            "settings": self.settings,
            "warnings": self.warnings
            + [f"{s.name}: {text}" for s in self.subsets.values() for text in s.warnings],
            "subsets": {name: subset.to_json() for name, subset in self.subsets.items()},
            "differences": {pair: _quantities(group) for pair, group in self.differences.items()},
        } | self.details

    def save(self, out: Path) -> None:
        """Write results.json, losses.parquet, losses-blocks.parquet and replicates.parquet into `out`.

        checksums.json, written last, holds their checksums (`jetscale.analysis.output.checksums`).
        """
        import pandas as pd

        from jetscale.analysis.output import checksums
        from jetscale.analysis.tables.sources import saved
        from jetscale.runs import parquet

        out.mkdir(parents=True, exist_ok=True)
        checksums.remove(out)
        saved.write(out / "losses.parquet", self.losses, self.fitted_blocks())
        frames = [pd.DataFrame(s.draws).assign(subset=s.name) for s in self.subsets.values() if s.draws]
        if frames:
            parquet.write_frame(pd.concat(frames, ignore_index=True), out / "replicates.parquet")
        write_json(out / "results.json", plain(self.to_json()))
        checksums.write(out)


def plain(content: Any) -> Any:
    """JSON-able copy: arrays to lists, numpy numbers to Python's, what is not finite to None."""
    if isinstance(content, Quantity):
        return plain(content.to_json())
    if is_dataclass(content) and not isinstance(content, type):
        return plain(asdict(content))
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple | np.ndarray):
        return [plain(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def _quantities(group: dict[str, Quantity]) -> dict[str, Any]:
    return {name: quantity.to_json() for name, quantity in group.items()}


def summarise(
    value: float, draws_R: Array | None, method: str, dof: float, scale: Scale = "linear"
) -> Quantity:
    """Quantity of a point value and its replicates.

    ``runs``: percentiles of the replicates as they are. ``test_jets``: normal interval of their spread (the
    paper's). Else percentiles of their deviations from their median, about the value, times
    t(0.975, dof) / 1.96, on a scale on which the quantity is free (`log` where it is positive, `logit`
    between 0 and 1). Replicates without a value (no usable slice) are left out; with more than a tenth of
    them no interval is given.
    """
    if not np.isfinite(value):
        return Quantity(None)
    if draws_R is None or len(draws_R) < 20:
        return Quantity(float(value))
    found = draws_R[np.isfinite(draws_R)]
    if len(found) < 0.9 * len(draws_R):
        return Quantity(float(value))
    if found.std(ddof=1) <= TIE * abs(value):  # a difference of rounding: a + b where D is C / (k N)
        return Quantity(float(value), 0.0, (float(value), float(value)))
    if method == "runs":
        low, high = np.percentile(found, [2.5, 97.5])
        return Quantity(float(value), float(found.std(ddof=1)), (float(low), float(high)))
    stretch = _student(dof)
    if method == "test_jets":
        sd = float(found.std(ddof=1))
        return Quantity(float(value), sd, (float(value - 1.96 * sd), float(value + 1.96 * sd)))
    to, back = _SCALES[scale]
    with np.errstate(divide="ignore"):
        on_scale, centre = to(found), to(np.array(value))
        ends = stretch * (np.percentile(on_scale, [2.5, 97.5]) - np.median(on_scale))
    low, high = back(centre + ends)
    return Quantity(float(value), float(found.std(ddof=1)), (float(low), float(high)))


def _logit(share: Array) -> Array:
    return np.log(share) - np.log1p(-share)


def _logistic(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


_SCALES: dict[Scale, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "linear": (lambda x: x, lambda x: x),
    "log": (np.log, np.exp),
    "logit": (_logit, _logistic),
}


def _student(dof: float) -> float:
    from scipy.stats import t

    return 1.0 if not np.isfinite(dof) else float(t.ppf(0.975, max(dof, 1)) / 1.959964)
