"""What a fit of the loss surface minimises: the sum over points of a penalty of the residual.

Shapes: R replicates, P points, Q = 5 parameters (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jetscale.common.usage import UsageError

Array = NDArray[np.float64]
Penalty = Literal["huber", "squared", "absolute"]
Residual = Literal["log", "raw"]

# |r| is smoothed to Huber with this delta: below the precision of any published loss, and 100 times smaller
# ones leave the solver in bends of the valley
ABSOLUTE_DELTA = 1e-5


@dataclass(frozen=True)
class Objective:
    """Penalty of a residual, summed (never averaged) over points.

    Attributes
    ----------
    penalty : "huber" (quadratic up to `delta`, linear beyond: Hoffmann et al., arXiv:2203.15556),
        "squared" (r^2) or "absolute" (|r|).
    delta : where Huber turns linear, in units of the residual.
    residual : "log": ln L_fit - ln L; "raw": L_fit - L.
    """

    penalty: str = "huber"
    delta: float = 1e-3
    residual: str = "log"

    def __post_init__(self) -> None:
        if self.penalty not in get_args(Penalty):
            raise UsageError(f"penalty {self.penalty!r}: choose one of {', '.join(get_args(Penalty))}")
        if self.residual not in get_args(Residual):
            raise UsageError(f"residual {self.residual!r}: choose one of {', '.join(get_args(Residual))}")
        if not self.delta > 0:
            raise UsageError(f"delta={self.delta} must be positive")

    @property
    def corner(self) -> float:
        """The residual at which the penalty turns linear."""
        return {"huber": self.delta, "squared": np.inf, "absolute": ABSOLUTE_DELTA}[self.penalty]

    def value(self, residual_RP: Array, weight_RP: Array) -> Array:
        """Objective of every replicate, (R,).

        Parameters
        ----------
        residual_RP : (R, P).
        weight_RP : (R, P) or (1, P).
        """
        size_RP = np.abs(residual_RP)
        inner_RP = np.minimum(size_RP, self.corner)
        huber_RP = inner_RP * (size_RP - 0.5 * inner_RP)
        alike = len(weight_RP) == 1
        total_R = huber_RP @ weight_RP[0] if alike else np.einsum("rp,rp->r", weight_RP, huber_RP)
        return np.asarray(self.scale * total_R)

    @property
    def scale(self) -> float:
        """Factor between `value` and Huber's sum (half of the squares, delta times the absolute values)."""
        return {"huber": 1.0, "squared": 2.0, "absolute": 1.0 / ABSOLUTE_DELTA}[self.penalty]
