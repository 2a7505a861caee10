"""What a lack of fit does to the answer: how far a, and the loss at ten times the largest budget, move.

Every table with little scatter shows that L = E + A/N^alpha + B/D^beta is not exact; what counts is whether
another description of the same data says something else. Four are tried: the smallest and the largest budgets
left out, the bends of the residuals added to the surface, and the coupled form where it fits as well.

Shapes: P points, K budgets, G sizes tried at a budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.checks.lack_of_fit import bend_surface
from jetscale.analysis.fitting.surface import FORMS, Surfaces, form_named
from jetscale.analysis.fitting.surface_fit import Undetermined
from jetscale.analysis.fitting.task import Task

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

END = 0.15  # of the points, in order of C, left out at an end
BEYOND = 10.0  # times the largest budget: where the loss is predicted
WORSE = 1.1  # rms of residuals over that of the surface, up to which another form describes the data as well
SMALL_A = 0.01
SMALL_LOSS = 0.01  # relative
BUDGETS = 9
SIZES = 801
MIN_BUDGETS = 4

_LogLoss = Callable[[Array, Array], Array]


def effect(task: Task, surface: Surfaces, a_half_width: float | None) -> dict[str, Any]:
    """Return the largest moves of a and of the extrapolated loss, what makes them, and a verdict.

    Parameters
    ----------
    surface : the fit of the data. a_half_width : of the interval of its a; None where it has none.
    """
    log_C = float(task.curves.log_C.max() + np.log(BEYOND))
    a = float(task.exponents(surface)[0][0])
    loss = float(task.cost.optimal_log_loss(surface, np.array([log_C]))[0, 0])
    tried = {
        name: (
            None if other_a is None else other_a - a,
            None if other is None else float(np.expm1(other - loss)),
        )
        for name, (other_a, other) in _others(task, surface, log_C).items()
    }
    moves_a = {name: move for name, (move, _) in tried.items() if move is not None}
    moves_loss = {name: move for name, (_, move) in tried.items() if move is not None}
    by_a = max(moves_a, key=lambda name: abs(moves_a[name]), default="")
    by_loss = max(moves_loss, key=lambda name: abs(moves_loss[name]), default="")
    large = bool(by_a) and abs(moves_a[by_a]) > max(SMALL_A, a_half_width or 0.0)
    large |= bool(by_loss) and abs(moves_loss[by_loss]) > SMALL_LOSS
    return {
        "verdict": "large" if large else "small",
        "a": moves_a.get(by_a),
        "a_by": by_a,
        "a_half_width": a_half_width,
        "loss": moves_loss.get(by_loss),
        "loss_by": by_loss,
        "budget": float(np.exp(log_C)),
        "moves": {name: {"a": move_a, "loss": move_loss} for name, (move_a, move_loss) in tried.items()},
    }


def described(test: dict[str, Any]) -> str:
    """Say in words what the lack of fit does."""
    moved = test["effect"]
    parts = []
    if moved["a"] is not None:
        own = "" if moved["a_half_width"] is None else f", its interval is ±{moved['a_half_width']:.2g}"
        parts.append(f"a moves by up to {moved['a']:+.2g} ({moved['a_by']}{own})")
    if moved["loss"] is not None:
        parts.append(
            f"the loss at {BEYOND:g} times the largest budget by up to {100 * moved['loss']:+.2g}%"
            f" ({moved['loss_by']})"
        )
    bend, rms = (100 * test[key] for key in ("bend_rms", "residual_rms"))
    found = " and ".join(parts) or "no other description could be fitted"
    return (
        f"lack of fit with a {moved['verdict']} effect: {found} (p = {test['p_value']:.1g};"
        f" residuals bend by {bend:.2g}% of the loss, rms of all {rms:.2g}%)"
    )


def _others(task: Task, surface: Surfaces, log_C: float) -> dict[str, tuple[float | None, float | None]]:
    """A and ln loss at the budget by every other description."""
    c, regular = task.curves, task.regular
    low, high = np.quantile(c.log_C[regular], [END, 1 - END])
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, chosen in (
        ("smallest budgets left out", regular & (c.log_C > low)),
        ("largest budgets left out", regular & (c.log_C < high)),
    ):
        found[name] = _refitted(task, chosen, log_C)
    residual = (task.log_L_P - surface.log_loss(c.log_N, c.log_D)[0])[regular]
    bend = bend_surface(surface, c.log_N[regular], c.log_D[regular], residual)
    if bend is not None:
        found["bends added"] = (_exponent(task, lambda x, y: surface.log_loss(x, y)[0] + bend(x, y)), None)
    for form in FORMS.names():
        if form_named(form).additive or form == task.settings.approach3.form:
            continue
        other = _other_form(task, form, WORSE**2 * (residual**2).mean())
        if other is not None:
            found[f"{form} form"] = (_exponent(task, other), _lowest(task, other, log_C, wide=True)[1])
    return found


def _other_form(task: Task, form: str, limit: float) -> _LogLoss | None:
    """Fit another form; None where it cannot be fitted, or its mean squared residual is above `limit`."""
    c, regular = task.curves, task.regular
    log_N, log_D, log_L = c.log_N[regular], c.log_D[regular], task.log_L_P[regular]
    try:
        found = replace(task.fitter.of(regular), form=form_named(form)).compared(log_L)
    except Undetermined:
        return None
    if ((found(log_N, log_D) - log_L) ** 2).mean() > limit:
        return None  # no description of these data
    return found


def _refitted(task: Task, chosen: Mask, log_C: float) -> tuple[float | None, float | None]:
    fitter = task.fitter.of(chosen)
    try:
        found, certificate = fitter.point(task.log_L_P[chosen])
    except Undetermined:
        return None, None
    if certificate.undetermined():
        return None, None
    a = float(task.exponents(found.surfaces)[0][0])
    return a, float(task.cost.optimal_log_loss(found.surfaces, np.array([log_C]))[0, 0])


def _exponent(task: Task, log_loss: _LogLoss) -> float | None:
    """Slope of ln N* on ln C over the budgets whose optimum lies among the sizes tried."""
    log_C_K = np.linspace(task.curves.log_C.min(), task.curves.log_C.max(), BUDGETS)
    best = np.array([_lowest(task, log_loss, float(log_C), wide=False)[0] for log_C in log_C_K])
    inside = np.isfinite(best)
    if inside.sum() < MIN_BUDGETS:
        return None
    return float(np.polyfit(log_C_K[inside], best[inside], 1)[0])


def _lowest(task: Task, log_loss: _LogLoss, log_C: float, *, wide: bool) -> tuple[float, float | None]:
    """Ln N* and ln loss at a budget; NaN and None at an edge of the sizes (`wide`: many decades beyond)."""
    c, margin = task.curves, 12.0 if wide else 0.0
    log_N_G = np.linspace(c.log_N.min() - margin, c.log_N.max() + margin, SIZES)
    log_D_G = task.cost.log_data(np.full(SIZES, log_C), log_N_G)
    usable = np.ones(SIZES, dtype=bool) if wide else (log_D_G >= c.log_D.min()) & (log_D_G <= c.log_D.max())
    if usable.sum() < 3:
        return float("nan"), None
    x, y = log_N_G[usable], log_loss(log_N_G[usable], log_D_G[usable])
    at = int(y.argmin())
    if at in (0, len(x) - 1):
        return float("nan"), None
    left, middle, right = y[at - 1 : at + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(x[at] + shift * (x[1] - x[0])), float(middle)
