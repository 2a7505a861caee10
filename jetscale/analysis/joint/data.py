"""What joint fits need of the groups: their points, their replicates, and what they were pretrained on.

Shapes: R replicates, P points of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.errors.resampling import WEBB, Replicates
from jetscale.analysis.fitting.approach import Draws
from jetscale.analysis.fitting.numbers import TIE, student_reach
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.outliers import robust_sigma
from jetscale.analysis.fitting.task import Task
from jetscale.analysis.joint.model import Losses
from jetscale.analysis.joint.sharing import Points

Array = NDArray[np.float64]

CORNER = 1.345  # of Huber's penalty in the tests, in robust standard deviations
FLIPS = 7  # purpose of the generator of the wild bootstrap around a joint fit


@dataclass(frozen=True)
class Facts:
    """What is known of a group besides its losses.

    Attributes
    ----------
    pretrain_jets : jets of pretraining, 0 from scratch; None where the table does not say.
    dims : width by N; empty where the table has none.
    """

    pretrain_jets: float | None
    dims: dict[float, float]


@dataclass(frozen=True)
class JointData:
    """Groups that are fitted together.

    Attributes
    ----------
    tasks : by group.
    replicates : by group; None where there are none.
    facts : by group.
    draws : what every replicate of a group yields by itself, by group.
    rows : how many replicates are used.
    """

    tasks: Mapping[str, Task]
    replicates: Mapping[str, Replicates | None]
    facts: Mapping[str, Facts]
    draws: Mapping[str, Draws]
    rows: int

    @property
    def names(self) -> list[str]:
        """Of the groups, in order."""
        return list(self.tasks)

    @property
    def points(self) -> dict[str, Points]:
        """What is fitted, by group."""
        return {
            name: Points(task.curves.log_N, task.curves.log_D, task.log_L_P, task.curves.weight)
            for name, task in self.tasks.items()
        }

    @property
    def objective(self) -> Objective:
        """What is minimised; the same for all groups."""
        return next(iter(self.tasks.values())).fitter.objective

    @property
    def test_objective(self) -> Objective:
        """What the tests minimise: Huber's penalty with its corner at 1.345 robust standard deviations.

        It has 95% of the power of least squares where the scatter is Gaussian and still bounds the pull of
        outliers (Huber, Annals of Mathematical Statistics 35, 1964, 73). The corner of the fit itself, far
        below the scatter, makes it nearly a fit of absolute values, with 64%.
        """
        own = self.objective
        if own.penalty == "squared":
            return own
        left = []
        for task in self.tasks.values():
            if task.surface is not None:
                fitted = task.surface.log_loss(task.curves.log_N, task.curves.log_D)[0]
                raw = own.residual == "raw"
                off = np.exp(fitted) - np.exp(task.log_L_P) if raw else fitted - task.log_L_P
                left.append(robust_sigma(off, task.fitter.parameters))
        return Objective("huber", max(own.delta, CORNER * float(np.median(left)), TIE), own.residual)

    @property
    def method(self) -> str:
        """Model of errors: that of all groups, ``mixed``, or ``none``."""
        found = {"none" if one is None else one.method for one in self.replicates.values()}
        return found.pop() if len(found) == 1 else ("none" if "none" in found else "mixed")

    @property
    def dof(self) -> float:
        """Degrees of freedom behind the spread: the fewest of any group."""
        return min((one.dof for one in self.replicates.values() if one is not None), default=np.inf)

    @property
    def levels(self) -> list[float]:
        """Levels of the intervals, in %."""
        return next(iter(self.tasks.values())).settings.uncertainty.levels

    @property
    def has_replicates(self) -> bool:
        """Whether every group has them."""
        return all(one is not None for one in self.replicates.values())

    def drawn(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Ln L and weights of the replicates by group, (R, P) or (1, P); the same draws in every group."""
        log_L, weight = {}, {}
        for name, one in self.replicates.items():
            assert one is not None
            log_L[name] = one.log_L_RP[: self.rows]
            weight[name] = one.weight_RP[: self.rows] * self.tasks[name].fitter.weights
        return log_L, weight

    def noise(self) -> dict[str, Array] | None:
        """Scatter of seeds and test jets at the points, (R, P) by group; None where seeds do not show it.

        A few seeds know their scatter badly: it is stretched by t(0.975, dof) / 1.96, as intervals are.
        Without, a test of the scales A rejected 15% of the simulated studies in which they are the same.
        """
        if self.method != "hierarchical":
            return None
        stretch = student_reach(95, self.dof) / student_reach(95, np.inf)
        return {name: stretch * (log_L - self.tasks[name].log_L_P) for name, log_L in self.drawn()[0].items()}

    def flipped(self, fitted: Losses, parameters: int) -> dict[str, Array]:
        """Residuals about a joint fit with random weights, one a curve, (R, P) by group (wild bootstrap).

        They are stretched by sqrt(n / (n - parameters)) for n curves, since fitting shrinks them.

        Parameters
        ----------
        fitted : ln L of the joint fit, (1, P) by group.
        parameters : of the joint fit.
        """
        curves = sum(len(task.curves.cell_runs) for task in self.tasks.values())
        stretch = np.sqrt(curves / max(curves - parameters, 1))
        found = {}
        for number, (name, task) in enumerate(self.tasks.items()):
            cells = len(task.curves.cell_runs)
            rng = np.random.default_rng([task.settings.uncertainty.seed, FLIPS, number])
            flips_RC = rng.choice(WEBB, size=(self.rows, cells))
            residual_P = task.log_L_P - fitted[name][0]
            found[name] = stretch * flips_RC[:, task.curves.cell] * residual_P
        return found

    def weights(self) -> dict[str, Array]:
        """Weights of the points, (1, P) by group."""
        return {name: task.fitter.weights[None] for name, task in self.tasks.items()}
