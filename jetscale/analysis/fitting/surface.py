"""Loss surfaces L(N, D): the type of a form, and R fitted surfaces of one form.

A form is one class, registered under a name: ``approach3.form=NAME`` fits it. Everything else (starts, fit,
certificate, bootstrap, profile, plan, report) goes through the methods of `SurfaceForm`. A form of your own
is one file, loaded by ``--trust MODULE``; it gives its formula and its derivatives, and overrides the
defaults that do not hold for it (docs/extending.md).

Shapes: R replicates, P points, K budgets, Q parameters of the form, F of them free in a fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Bounds, Index, Target, hold_column, unconstrained
from jetscale.analysis.fitting.starts import EXPONENTS_G, projected_starts
from jetscale.common.registry import Registry
from jetscale.common.usage import UsageError

Array = NDArray[np.float64]

# weights (R, P) -> over the points, with these weights, the sum of the second derivatives of L divided by L,
# (R, Q, Q)
Bend = Callable[[Array], Array]

EXPONENT_BOUNDS = (1e-3, 4.0)
LOG_BOUND = 500.0  # of a logarithm: exp() of it is finite
FLOOR_BOUND = 1e-4  # E as a share of the lowest loss: below this there is no floor


class SurfaceForm(ABC):
    """One form of the loss surface; its parameters theta are the columns of an array (R, Q).

    A parameter called ``log_X`` is the logarithm of a positive X; ``log_E`` is that of the floor, the loss
    that no N and D can go below. The defaults hold for forms of the terms A / N^alpha and B / D^beta.

    Attributes
    ----------
    formula : L(N, D) in words of its parameters, for the report.
    parameters : names of the columns of theta.
    limits : lowest and highest value of parameters that are no logarithm, where not `EXPONENT_BOUNDS`.
    additive : whether it is E + A / N^alpha + B / D^beta or a special case of it; others are tried where the
        additive form does not fit.
    distinct : how many values of N and of D the points must have.
    start_grids : values of alpha and of beta among which starts are searched.
    """

    formula: str
    parameters: tuple[str, ...] = ("log_A", "log_B", "log_E", "alpha", "beta")
    limits: Mapping[str, tuple[float, float]] = {}
    additive: bool = False
    distinct: tuple[int, int] = (3, 3)
    start_grids: tuple[Array, Array] = (EXPONENTS_G, EXPONENTS_G)

    @abstractmethod
    def derivatives(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> tuple[Array, Array, Bend]:
        """Return ln L and its derivatives.

        Parameters
        ----------
        theta_RQ : (R, Q) parameters.
        x_RP, y_RP : ln N and ln D, (P,) or (R, P).

        Returns
        -------
        ln L (R, P); its first derivatives (R, Q, P); and a function of weights (R, P) that sums, over the
        points with these weights, the second derivatives of L divided by L, (R, Q, Q). Where H are the second
        derivatives of ln L and J its first, those of L divided by L are H + J J'.
        """

    def log_loss(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> Array:
        """Ln L, (R, P), at ln N and ln D of shape (P,) or (R, P)."""
        return self.derivatives(theta_RQ, x_RP, y_RP)[0]

    def moved(self, theta_RQ: Array, dx: float, dy: float) -> Array:
        """Parameters of L(x + dx, y + dy) as a surface in x and y, (R, Q): a fit centres ln N and ln D."""
        moved = theta_RQ.copy()
        log_A, log_B, alpha, beta = (self.column(name) for name in ("log_A", "log_B", "alpha", "beta"))
        moved[:, log_A] -= theta_RQ[:, alpha] * dx
        moved[:, log_B] -= theta_RQ[:, beta] * dy
        return moved

    def exponents(self, theta_RQ: Array) -> tuple[Array, Array] | None:  # noqa: ARG002 (the interface has it)
        """A and b, (R,) each, of N* ~ C^a and D* ~ C^b for C = k N D; None where they change with C.

        Without them a and b are slopes of the optimum over the budgets of the table, found numerically.

        Parameters
        ----------
        theta_RQ : (R, Q).
        """
        return None

    def optimum(self, theta_RQ: Array, log_C: Array, log_k: float) -> tuple[Array, Array] | None:  # noqa: ARG002 (the interface has it)
        """Ln N* and ln D* (R, K) at budgets (K,) or (R, K) for C = k N D; None: found numerically.

        Parameters
        ----------
        theta_RQ : (R, Q).
        log_C : ln of the budgets in FLOPs.
        log_k : ln of k.
        """
        return None

    def compute_for_loss(self, theta_RQ: Array, loss: float, log_k: float) -> Array | None:  # noqa: ARG002 (the interface has it)
        """Ln of the least C = k N D that reaches `loss`, (R,); None: it is found numerically.

        Parameters
        ----------
        theta_RQ : (R, Q).
        loss : nats.
        log_k : ln of k.
        """
        return None

    def log_trade(self, theta_RQ: Array, x_RK: Array, y_RK: Array) -> Array:
        """How much more a larger model gains than more data: ln(dL/dln N / dL/dln D), (R, K).

        By differences over 2e-3 in ln N and ln D: the ratio is good to about 1e-8.

        Parameters
        ----------
        theta_RQ : (R, Q).
        x_RK, y_RK : (R, K) ln N and ln D.
        """
        h, tiny = 1e-3, 1e-300
        by_N = self.log_loss(theta_RQ, x_RK - h, y_RK) - self.log_loss(theta_RQ, x_RK + h, y_RK)
        by_D = self.log_loss(theta_RQ, x_RK, y_RK - h) - self.log_loss(theta_RQ, x_RK, y_RK + h)
        return np.asarray(np.log(np.maximum(by_N, tiny)) - np.log(np.maximum(by_D, tiny)))

    def directions(self, theta_Q: Array, x_P: Array, y_P: Array, dx: float, dy: float) -> Array:
        """First derivatives of ln L of one surface, (P, Q), by its parameters in x - dx and y - dy.

        Parameters
        ----------
        theta_Q : (Q,) parameters of the surface.
        x_P, y_P : (P,) ln N and ln D.
        dx, dy : what is taken off them.
        """
        centred = self.moved(theta_Q[None], dx, dy)
        return np.asarray(self.derivatives(centred, x_P - dx, y_P - dy)[1][0].T)

    # ---- what a fit is allowed to do -------------------------------------------------------------------

    @property
    def pinned(self) -> dict[str, float]:
        """Values of the parameters that are held, not fitted (`jetscale.analysis.fitting.pins`)."""
        return {}

    @property
    def centred(self) -> tuple[bool, bool]:
        """Whether a fit may take ln N, and ln D, from their means."""
        return True, True

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the parameters phi that a fit moves, all of `parameters` unless `constraint` ties some."""
        return self.parameters

    def constraint(self, phi_RF: Array, index: Index) -> tuple[Array, Array, Array | None]:
        """Turn free parameters into theta (`constraints.Constraint`).

        Parameters
        ----------
        phi_RF : (R, F).
        index : numbers of the rows.
        """
        return unconstrained(phi_RF, index)

    def reduced(self, theta_RQ: Array) -> Array:
        """Inverse of `constraint`: the free parameters (R, F) of theta."""
        return theta_RQ

    def starts(self, x_P: Array, y_P: Array, log_L_RP: Array, weight_RP: Array, count: int) -> Array:
        """Points from which a fit starts, (R, count, F), in centred ln N and ln D.

        By default the best nodes of a grid in alpha and beta, at which the additive form is linear.

        Parameters
        ----------
        x_P, y_P : (P,) centred ln N and ln D.
        log_L_RP, weight_RP : (R, P) or (1, P).
        count : starts for each replicate.
        """
        if unknown := set(self.free) - set(SurfaceForm.parameters):
            raise UsageError(f"{type(self).__name__}: no start for {', '.join(unknown)}; write its `starts`")
        columns = [SurfaceForm.parameters.index(name) for name in self.free]
        grids = self.start_grids
        return projected_starts(x_P, y_P, log_L_RP, weight_RP, count, grids=grids)[:, :, columns]

    def nearby(self, additive_RQ: Array) -> Array | None:  # noqa: ARG002 (the interface has it)
        """Starts (S, F) next to a fitted additive surface (1, 5), where this form is only compared with it.

        None: the form is searched for as in approach 3, which takes longer.
        """
        return None

    def bounds(self, log_L_RP: Array) -> Bounds:
        """Box of the free parameters (F,) for these ln L: a floor E is at least 1e-4 of the lowest loss.

        Parameters
        ----------
        log_L_RP : (R, P) observed ln L.
        """
        ends = np.array([self.limit(name) for name in self.free])
        if "log_E" in self.free:
            ends[self.free.index("log_E"), 0] = np.log(FLOOR_BOUND) + log_L_RP.min()
        return Bounds(ends[:, 0], ends[:, 1])

    def targets(self, bounds: Bounds, reach: float) -> dict[str, Target]:  # noqa: ARG002 (the interface has it)
        """Quantities whose likelihood is profiled, by name: the floor, and what is no logarithm.

        Parameters
        ----------
        bounds : of the centred parameters.
        reach : centred ln N + ln D of the largest budget, where N* and D* are profiled.
        """
        if len(bounds.low) != len(self.parameters):
            return {}
        found = {
            name: hold_column(self.column(parameter), bounds)
            for name, parameter in self.reported.items()
            if not parameter.startswith("log_")
        }
        if "L_inf" in self.reported:
            found["L_inf"] = hold_column(self.column(self.reported["L_inf"]), bounds, np.exp, np.log)
        return found

    # ---- read off the names ----------------------------------------------------------------------------

    @property
    def reported(self) -> dict[str, str]:
        """Names of the quantities of results.json, in their order, to the parameter of each."""
        found = {"L_inf": "log_E"} if "log_E" in self.parameters else {}
        return found | {name.removeprefix("log_"): name for name in self.parameters if name != "log_E"}

    def column(self, parameter: str) -> int:
        """Column of a parameter in theta."""
        return self.parameters.index(parameter)

    def limit(self, parameter: str) -> tuple[float, float]:
        """Lowest and highest value of a parameter, whatever the data."""
        if parameter.startswith("log_"):
            return -LOG_BOUND, LOG_BOUND
        return self.limits.get(parameter, EXPONENT_BOUNDS)

    @property
    def shapes(self) -> list[int]:
        """Columns of theta that are no logarithm."""
        return [q for q, name in enumerate(self.parameters) if not name.startswith("log_")]

    def outside(self, theta_RQ: Array) -> NDArray[np.bool_]:
        """Rows of theta at which the form is not evaluated, (R,): far beyond its bounds, or not finite."""
        low, high = self._domain
        inside = (theta_RQ >= low) & (theta_RQ <= high)  # not where it is NaN
        return np.asarray(~inside.all(axis=1))

    @cached_property
    def _domain(self) -> tuple[Array, Array]:
        """Ends of the parameters beyond which a form is not evaluated, (Q,)."""
        low, high = np.full(len(self.parameters), -1000.0), np.full(len(self.parameters), 1000.0)
        for q in self.shapes:
            least = self.limit(self.parameters[q])[0]
            low[q] = 0.5 * least if least > 0 else low[q]
        return low, high

    def values(self, theta_RQ: Array) -> dict[str, Array]:
        """Return the reported quantities (R,) by name."""
        return {
            name: np.exp(theta_RQ[:, self.column(key)])
            if key.startswith("log_")
            else theta_RQ[:, self.column(key)]
            for name, key in self.reported.items()
        }

    def theta_of(self, values: Mapping[str, Array]) -> Array:
        """Inverse of `values`, (R, Q)."""
        quantity = {key: name for name, key in self.reported.items()}
        return np.stack(
            [
                np.log(values[quantity[key]]) if key.startswith("log_") else values[quantity[key]]
                for key in self.parameters
            ],
            axis=1,
        )


FORMS: Registry[type[SurfaceForm]] = Registry(
    "form",
    {
        "separate": "jetscale.analysis.fitting.forms:Separate",
        "tied": "jetscale.analysis.fitting.forms:Tied",
        "coupled": "jetscale.analysis.fitting.forms:Coupled",
    },
)


@lru_cache(maxsize=64)
def form_named(name: str) -> SurfaceForm:
    """The form that is registered under `name`, checked.

    Raises
    ------
    UsageError
        There is none, or its derivatives are not those of its loss.
    """
    form = FORMS[name]()
    if problem := _problem(form):
        raise UsageError(f"form {name!r} ({type(form).__name__}): {problem}")
    return form


def _problem(form: SurfaceForm) -> str:
    """Compare what a form says of itself with differences of its ln L, at one ordinary surface."""
    ordinary = {"log_A": -1.0, "log_B": -0.8, "log_E": -0.5}
    middles = {name: ordinary.get(name, 0.0) for name in form.parameters if name.startswith("log_")}
    middles |= {name: 0.3 for name in form.parameters if name not in middles}
    theta = np.array([[middles[name] for name in form.parameters]])
    theta = form.constraint(form.reduced(theta), np.array([0]))[0]
    x_P, y_P = np.array([-1.0, 0.5, 1.5, -0.5]), np.array([1.2, -0.7, 0.3, -1.5])
    weight, h = np.array([[1.0, 0.5, 2.0, 1.5]]), 1e-4
    log_L, J, bend = form.derivatives(theta, x_P, y_P)
    if not np.allclose(log_L, form.log_loss(theta, x_P, y_P), rtol=0, atol=1e-10):
        return "`log_loss` and `derivatives` give different losses"
    if not np.allclose(form.log_loss(form.moved(theta, 0.4, -0.3), x_P - 0.4, y_P + 0.3), log_L, atol=1e-8):
        return "`moved` does not give the surface that is shifted in ln N and ln D"
    sides = np.concatenate([theta + h * np.eye(theta.shape[1]), theta - h * np.eye(theta.shape[1])])
    up, down = np.split(form.log_loss(sides, x_P, y_P), 2)
    if not np.allclose((up - down) / (2 * h), J[0], atol=1e-6):
        return "the first derivatives are not those of ln L"
    up, down = np.split(form.derivatives(sides, x_P, y_P)[1], 2)
    second = ((up - down) / (2 * h) + J[0][None] * J[0][:, None]) @ weight[0]
    if not np.allclose(second, bend(weight)[0], atol=1e-5):
        return "the second derivatives are not those of L, divided by L"
    return ""


@dataclass(frozen=True)
class Surfaces:
    """R loss surfaces of one form.

    Attributes
    ----------
    theta : (R, Q) parameters; logarithms are kept, since A and B span many decades.
    form : what the columns mean.
    """

    theta: Array
    form: SurfaceForm

    @classmethod
    def from_theta(cls, theta_RQ: Array, form: SurfaceForm | None = None) -> Surfaces:
        """Surfaces of parameters (R, Q) or (Q,); without a form E + A / N^alpha + B / D^beta.

        Parameters
        ----------
        theta_RQ : (R, Q) or (Q,).
        form : what the columns mean.
        """
        return cls(np.atleast_2d(theta_RQ), form or form_named("separate"))

    @classmethod
    def single(cls, *, E: float, A: float, B: float, alpha: float, beta: float) -> Surfaces:
        """One surface E + A / N^alpha + B / D^beta from its parameters."""
        return cls.from_theta(np.array([[np.log(A), np.log(B), np.log(E), alpha, beta]]))

    def __getitem__(self, parameter: str) -> Array:
        """Values (R,) of one parameter, by its name in `SurfaceForm.parameters`."""
        return self.theta[:, self.form.column(parameter)]

    @property
    def log_floor(self) -> Array:
        """Ln of the loss that no N and D can go below, (R,); minus infinity for a form without one."""
        floor = self.form.reported.get("L_inf")
        return np.full(len(self.theta), -np.inf) if floor is None else self[floor]

    def log_loss(self, log_N: Array, log_D: Array) -> Array:
        """Ln L at points of shape (P,) or (R, P); (R, P)."""
        return self.form.log_loss(self.theta, log_N, log_D)

    def directions(
        self, log_N: Array, log_D: Array, of_N: Array | None = None, of_D: Array | None = None
    ) -> Array:
        """Derivatives of ln L of the first surface by its parameters, (P, Q).

        Parameters
        ----------
        log_N, log_D : (P,) points.
        of_N, of_D : the parameters are those of ln N and ln D centred on the means of these; on the means of
            the points themselves by default.
        """
        centre = [float((log_N if of_N is None else of_N).mean())]
        centre.append(float((log_D if of_D is None else of_D).mean()))
        return self.form.directions(self.theta[0], log_N, log_D, *centre)
