"""Numbers with errors, and which of their digits are rounding.

`Quantity` is what every fit and answer reports; `summarise` makes one of a value and its replicates. Values
that differ by rounding alone are equal (`levelled`): a choice among them must not hang on their last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Scale = Literal["linear", "log", "logit"]

SAME_VALUE = 1e-3  # of ln N and ln D: as far as counts of one thing differ
TIE = 1e-10  # of a logarithm: far above rounding, far below the precision of any loss, N, D or C


def levelled(value: Array) -> Array:
    """Give values that are equal up to rounding one value, along the last axis; (..., P).

    A value within `TIE` of the next smaller one takes the smallest of their group; infinite ones stay.

    Parameters
    ----------
    value : (..., P).
    """
    order = np.argsort(value, axis=-1, kind="stable")
    ascending = np.take_along_axis(value, order, axis=-1)
    with np.errstate(invalid="ignore"):
        first = ~(np.diff(ascending, axis=-1, prepend=-np.inf) <= TIE)
    start = np.maximum.accumulate(np.where(first, np.arange(value.shape[-1]), 0), axis=-1)
    level = np.empty_like(value)
    np.put_along_axis(level, order, np.take_along_axis(ascending, start, axis=-1), axis=-1)
    return level


def same_values(log_value_P: Array) -> Array:
    """Give counts of one thing, whose logarithms lie within `SAME_VALUE`, the smallest of them; (P,).

    Seeds may differ by a head, and C / (k D) of rounded numbers differs from row to row. Values that follow
    one another so closely over a wider range (the steps of a dense curve) stay as they are.

    Parameters
    ----------
    log_value_P : (P,) logarithms.
    """
    order = np.argsort(log_value_P, kind="stable")
    ascending, found = log_value_P[order], log_value_P.copy()
    for chain in np.split(np.arange(len(order)), np.flatnonzero(np.diff(ascending) > SAME_VALUE) + 1):
        if len(chain) and ascending[chain[-1]] - ascending[chain[0]] <= SAME_VALUE:
            found[order[chain]] = ascending[chain[0]]
    return found


def distinct(log_value_P: Array, apart: float = SAME_VALUE) -> int:
    """How many values there are that are further apart than this; from the smallest on.

    Parameters
    ----------
    log_value_P : (P,) logarithms.
    apart : what is less is one value.
    """
    ascending, count, at = np.sort(log_value_P), 0, 0
    while at < len(ascending):
        count, at = count + 1, int(np.searchsorted(ascending, ascending[at] + apart, side="right"))
    return count


def beyond_rounding(value: float, size: float = 1.0) -> float:
    """Return the value; 0 where rounding alone explains it, as a difference of numbers of this size.

    Parameters
    ----------
    value : the difference.
    size : of the numbers.
    """
    return 0.0 if abs(value) <= TIE * size else value


@dataclass(frozen=True)
class Quantity:
    """A number with its standard deviation and 95% interval; None where they cannot be given.

    Attributes
    ----------
    value, sd : the number and its standard deviation.
    ci95 : ends of the 95% interval.
    other_levels : (level in %, low end, high end) of every other interval that was asked for.
    """

    value: float | None
    sd: float | None = None
    ci95: tuple[float, float] | None = None
    other_levels: tuple[tuple[float, float, float], ...] = ()

    @classmethod
    def of_levels(
        cls,
        value: float,
        sd: float,
        ends: Callable[[float], tuple[float, float]],
        levels: Sequence[float] = (),
    ) -> Quantity:
        """A quantity whose interval of every level `ends` gives.

        Parameters
        ----------
        value, sd : the number and its standard deviation.
        ends : level in % to the ends of its interval.
        levels : of the intervals besides 95%.
        """
        others = tuple((float(level), *ends(level)) for level in levels if level != 95)
        return cls(value, sd, ends(95), others)

    def interval(self, level: float) -> tuple[float, float] | None:
        """Ends of the interval of `level` %; None where it was not asked for or cannot be given."""
        if level == 95:
            return self.ci95
        return next(((low, high) for one, low, high in self.other_levels if one == level), None)

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

        def kept(number: float) -> float:
            return float(f"{number:.{digits}g}")

        if self.ci95 is None or self.sd is None:
            return Quantity(kept(self.value))
        others = tuple((level, kept(low), kept(high)) for level, low, high in self.other_levels)
        return Quantity(kept(self.value), kept(self.sd), (kept(self.ci95[0]), kept(self.ci95[1])), others)

    def widened(self, below: float, above: float) -> Quantity:
        """The same with every interval so much longer at its low and high end.

        Parameters
        ----------
        below, above : what the ends move outwards by, at least 0.
        """
        if self.ci95 is None:
            return self
        others = tuple((level, low - below, high + above) for level, low, high in self.other_levels)
        return replace(self, ci95=(self.ci95[0] - below, self.ci95[1] + above), other_levels=others)

    def to_json(self) -> dict[str, Any]:
        """Return {"value", "sd", "ci95"}, and "ci80" and the like for other levels."""
        ends = None if self.ci95 is None else list(self.ci95)
        others = {f"ci{level:g}": [low, high] for level, low, high in self.other_levels}
        return {"value": self.value, "sd": self.sd, "ci95": ends} | others


def plain(content: Any) -> Any:
    """JSON-able copy: arrays to lists, numpy numbers to Python's, what is not finite to None."""
    if isinstance(content, Quantity):
        return plain(content.to_json())
    if is_dataclass(content) and not isinstance(content, type):
        return {part.name: plain(getattr(content, part.name)) for part in fields(content)}
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple | np.ndarray):
        return [plain(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def summarise(
    value: float,
    draws_R: Array | None,
    method: str,
    dof: float,
    scale: Scale = "linear",
    levels: Sequence[float] = (),
) -> Quantity:
    """Quantity of a point value and its replicates.

    ``runs``: percentiles of the replicates as they are. ``test_jets``: normal interval of their spread (the
    paper's). Else percentiles of their deviations from their median, about the value, times
    t(0.975, dof) / 1.96, on a scale on which the quantity is free (`log` where it is positive, `logit`
    between 0 and 1). Replicates without a value (no usable slice) are left out; with more than a tenth of
    them no interval is given, nor where the upper end lies among infinite ones (no compute reaches a loss).

    Parameters
    ----------
    value : of the data; NaN: not determined.
    draws_R : (R,) of the replicates; None: no error is known.
    method : model of errors.
    dof : degrees of freedom behind the spread.
    scale : on which percentiles are taken.
    levels : of further intervals, in %; 95 is always given.
    """
    if not np.isfinite(value):
        return Quantity(None)
    if draws_R is None or len(draws_R) < 20:
        return Quantity(float(value))
    found = draws_R[np.isfinite(draws_R)]
    tail = (100 - max(95.0, *levels)) / 200 if levels else 0.025
    if len(found) < 0.9 * len(draws_R) or np.isposinf(draws_R).mean() > tail:
        return Quantity(float(value))
    if found.std(ddof=1) <= TIE * abs(value):  # a difference of rounding: a + b where D is C / (k N)
        return Quantity.of_levels(float(value), 0.0, lambda _: (float(value), float(value)), levels)
    sd = float(found.std(ddof=1))

    def ends(level: float) -> tuple[float, float]:
        tails = [50 - level / 2, 50 + level / 2]
        if method == "runs":
            low, high = np.percentile(found, tails)
            return float(low), float(high)
        if method == "test_jets":
            reach = normal_reach(level) * sd
            return float(value - reach), float(value + reach)
        to, back = _SCALES[scale]
        with np.errstate(divide="ignore", invalid="ignore"):
            on_scale, centre = to(found), to(np.array(value))
            if np.isnan(on_scale).any() or np.isnan(centre):  # an exponent above 1 has no logit
                (to, back), on_scale, centre = _SCALES["linear"], found, np.array(value)
            low, high = back(
                centre + _stretch(level, dof) * (np.percentile(on_scale, tails) - np.median(on_scale))
            )
        return float(low), float(high)

    return Quantity.of_levels(float(value), sd, ends, levels)


def _logit(share: Array) -> Array:
    return np.log(share) - np.log1p(-share)


def _logistic(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


_SCALES: dict[Scale, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "linear": (lambda x: x, lambda x: x),
    "log": (np.log, np.exp),
    "logit": (_logit, _logistic),
}


def normal_reach(level: float) -> float:
    """Half-width of the normal interval of `level` %, in standard deviations; 1.96 for 95."""
    from scipy.special import ndtri

    return 1.96 if level == 95 else float(ndtri(0.5 + level / 200))


def student_reach(level: float, dof: float) -> float:
    """Half-width of Student's interval of `level` %, in standard deviations.

    Parameters
    ----------
    level : in %.
    dof : degrees of freedom; infinity for the normal distribution.
    """
    from scipy.special import ndtri, stdtrit  # scipy.stats takes half a second to load

    share = 0.5 + level / 200
    return float(ndtri(share)) if not np.isfinite(dof) else float(stdtrit(max(dof, 1), share))


def _stretch(level: float, dof: float) -> float:
    """Student's half-width over the normal one."""
    return student_reach(level, dof) / student_reach(level, np.inf)
