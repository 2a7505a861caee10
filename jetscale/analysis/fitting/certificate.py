"""The certificate of a fitted surface: why its minimum can be believed, or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLLINEAR = 0.9999  # correlation of ln N and ln D


@dataclass(frozen=True)
class Certificate:
    """Why the minimum can be believed, or not.

    Attributes
    ----------
    converged : the predicted relative decrease is below 1e-6.
    gradient : the largest derivative of the objective by a (centred) parameter is at most this, a power of
        ten; 1e-12 stands for 0 up to rounding.
    decrease : the relative decrease predicted for a further step, g' H^-1 g / (2 F), is at most this, a power
        of ten; 1e-15 stands for 0 up to rounding.
    starts, agreeing : starts made, and those that ended within 1e-6 (relative) of the lowest objective.
    condition : condition number of the Gauss-Newton matrix, centred ln N and ln D.
    floor_share : E over the lowest loss; near 0: no floor was found; NaN: the form has none.
    at_bound : names of the parameters at a bound.
    correlation : of ln N and ln D over the points.
    digits : how many digits rounding errors leave of a quantity, where these are fewer than a double should
        keep; the quantity is rounded to them, and null for 0.
    """

    converged: bool
    gradient: float
    decrease: float
    starts: int
    agreeing: int
    condition: float
    floor_share: float
    at_bound: list[str]
    correlation: float
    digits: dict[str, int]

    @property
    def has_floor(self) -> bool:
        """Whether a loss was found below which the fit cannot fall, as far as the form has one."""
        return not self.floor_share < 0.02

    def undetermined(self) -> str:
        """Why the exponents a and b cannot be given; empty where they can."""
        if not self.converged:
            return f"it did not converge (predicted relative decrease {self.decrease:.1e})"
        bounded = [name for name in self.at_bound if name != "L_inf"]
        if bounded:
            return f"{', '.join(bounded)} at a bound: the loss does not fall with N and D as the form does"
        if abs(self.correlation) > COLLINEAR:
            return (
                "D is proportional to N in every run: alpha and beta may be swapped, a and b cannot be told"
            )
        return ""

    def warnings(self) -> list[str]:
        """What a reader must know before using the fit."""
        found = []
        if self.undetermined():
            found.append(f"approach 3: no exponent: {self.undetermined()}")
        if self.digits:
            shown = ", ".join(f"{name} {count}" for name, count in self.digits.items())
            found.append(f"approach 3: so flat a minimum that rounding errors leave few digits: {shown}")
        if self.agreeing < 2:
            found.append(f"approach 3: only {self.agreeing} of {self.starts} starts reached the minimum")
        if not self.has_floor:
            found.append(
                "approach 3: no floor found: L_inf is below 2% of the lowest loss and has no interval"
            )
        if abs(self.correlation) > 0.9:
            found.append(
                f"ln N and ln D are collinear (correlation {self.correlation:+.2f}): "
                "alpha, beta and anything off their ray are badly determined"
            )
        return found


def at_most(value: float, rounding: float) -> float:
    """Return the next power of ten, or `rounding` where the value is below it."""
    return rounding if value <= rounding else float(10.0 ** np.ceil(np.log10(value)))
