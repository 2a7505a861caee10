"""Other recipes for one point fit of approach 3: seconds, extrapolated from a part of their starts or grid.

Every recipe keeps its way of searching. The objective is the log-Huber one if a recipe allows the choice.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.starts import EXPONENTS_G

Array = NDArray[np.float64]

LBFGSB_STARTS, LBFGSB_TIMED = 4500, 20
NNLS_STEP, NNLS_TIMED = 0.01, 2000
CHINCHILLA_GRID = {  # five values an axis: 3,125 starts
    "E": np.linspace(1.0, 2.5, 5),
    "a": np.linspace(2.0, 10.0, 5),
    "b": np.linspace(2.0, 10.0, 5),
    "alpha": np.linspace(0.1, 0.7, 5),
    "beta": np.linspace(0.1, 0.7, 5),
}


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of three: the peers' threads suffer most from busy neighbours."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def lbfgsb(log_N: Array, log_D: Array, log_L: Array) -> float:
    """The common recipe: L-BFGS-B with finite differences from 4,500 starts; 20 random ones are timed."""
    from scipy.optimize import minimize

    def value(theta: Array) -> float:
        log_A, log_B, log_E, alpha, beta = theta
        reducible = np.logaddexp(log_A - alpha * log_N, log_B - beta * log_D)
        return float(huber(np.logaddexp(reducible, log_E) - log_L).sum())

    rng = np.random.default_rng(2)
    low, high = [0, 0, -1, 0, 0], [25, 25, 1, 2, 2]
    starts = rng.uniform(low, high, (LBFGSB_TIMED, 5))

    def part() -> None:
        for start in starts:
            minimize(value, start, method="L-BFGS-B")

    return LBFGSB_STARTS / LBFGSB_TIMED * fastest(part)


def nnls_grid(log_N: Array, log_D: Array, log_L: Array) -> float:
    """Grid over (alpha, beta), E, A and B of raw L by non-negative least squares; 2,000 random nodes timed.

    The grid covers the exponents that our own starts cover, in steps of 0.01. In the manner of vpnls.
    """
    from scipy.optimize import nnls

    axis = np.arange(EXPONENTS_G[0], EXPONENTS_G[-1] + NNLS_STEP / 2, NNLS_STEP)
    nodes = np.array(list(itertools.product(axis, axis)))
    loss = np.exp(log_L)
    timed = np.random.default_rng(4).choice(nodes, NNLS_TIMED, replace=False)
    # centred, so that columns are comparable; A and B follow from the centre
    x_N, x_D = log_N - log_N.mean(), log_D - log_D.mean()

    def part() -> None:
        for alpha, beta in timed:
            nnls(np.column_stack([np.ones_like(loss), np.exp(-alpha * x_N), np.exp(-beta * x_D)]), loss)

    return len(nodes) / NNLS_TIMED * fastest(part)


def chinchilla(log_N: Array, log_D: Array, log_L: Array) -> float:
    """Fit of the `chinchilla` package in all its processes: 3,125 starts; 1 and 32 of them are timed.

    Raises
    ------
    ImportError
        The package is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")  # the fit draws a figure
    from chinchilla import Chinchilla

    def seconds(grid: dict[str, Array]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            fitter = Chinchilla(folder, param_grid=grid, loss_fn=log_huber, log_level=50)
            for row in np.exp(np.column_stack([log_N, log_D, log_L])):
                fitter.append(**dict(zip(("N", "D", "loss"), row, strict=True)))
            return fastest(fitter.fit)

    one = seconds({name: values[[2]] for name, values in CHINCHILLA_GRID.items()})
    some = seconds({name: values[[1, 3]] for name, values in CHINCHILLA_GRID.items()})
    starts = np.prod([len(values) for values in CHINCHILLA_GRID.values()])
    return float(one + (starts - 1) * (some - one) / 31)


def log_huber(actual: Array, predicted: Array) -> Array:
    """Our objective in the form that the `chinchilla` package takes."""
    return huber(np.log(predicted) - np.log(actual))


def huber(residual: Array) -> Array:
    """Huber's penalty with our default delta."""
    size, delta = np.abs(residual), Objective().delta
    return np.where(size < delta, size**2 / 2, delta * (size - delta / 2))


PEERS: dict[str, Callable[[Array, Array, Array], float]] = {
    "lbfgsb": lbfgsb,
    "nnls_grid": nnls_grid,
    "chinchilla": chinchilla,
}
