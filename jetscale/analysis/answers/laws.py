"""Fitted laws for plans and predictions: from a fit in memory, or from the folder it was saved to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers import saved_fit
from jetscale.analysis.answers.fitted import Fitted, behind, fitted_of
from jetscale.analysis.answers.saved_fit import SavedFit
from jetscale.analysis.checks.lack_of_fit import SIGNIFICANT
from jetscale.analysis.errors.one_variable import NAME as LAW
from jetscale.analysis.errors.scatter import Scatter
from jetscale.analysis.fitting.approach3 import NAME, surfaces_of
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.pins import pinned_form
from jetscale.analysis.fitting.power_law import POWER_LAW
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from jetscale.analysis.answers.fit_result import FitResult
    from jetscale.analysis.errors.estimate import Estimate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """One subset's surface, its replicates, and the runs behind it.

    Attributes
    ----------
    cost : C of N and D, in the unit of the table.
    surface : the point fit; replicates : (R,) or None; method, dof : how they were drawn.
    N_range, D_range, C_range : of what was fitted (`jetscale.analysis.answers.fitted`).
    dims, sizes : width and N of every row that was fitted.
    pretrain_jets : jets each run was pretrained on; 0 for none.
    rate : measured FLOP/s (paper's count) of the runs, NaN where unknown.
    row_N, row_D, row_run : ln N, ln D and run of each of these rows.
    scatter : of runs about the law; None where an earlier version fitted it.
    missed : rms of ln L that the form misses, where the test of fit says that it does; else 0.
    """

    name: str
    cost: Cost
    surface: Surfaces
    replicates: Surfaces | None
    method: str
    dof: float
    N_range: tuple[float, float]
    D_range: tuple[float, float]
    C_range: tuple[float, float]
    dims: Array
    sizes: Array
    pretrain_jets: float
    rate: float
    row_N: Array
    row_D: Array
    row_run: NDArray[np.object_]
    scatter: Scatter | None = None
    missed: float = 0.0


@dataclass(frozen=True)
class Line:
    """One subset's law of one variable, where its runs carry no surface.

    Attributes
    ----------
    symbol : N, D or C; reason : why the loss is a law of that alone.
    law, replicates : ln L of ln of the variable, and (R,) of them or None.
    method, dof : how the replicates were drawn.
    scatter : of runs about the law.
    ranges : of N, D and C over what was fitted.
    absent : those of N, D and C that the table does not give.
    k : of C = k N D.
    """

    name: str
    symbol: str
    reason: str
    law: Surfaces
    replicates: Surfaces | None
    method: str
    dof: float
    scatter: Scatter | None
    ranges: dict[str, tuple[float, float]]
    absent: tuple[str, ...]
    k: float

    @property
    def ratio(self) -> float:
        """D / N of the runs, in the middle."""
        (low_N, high_N), (low_D, high_D) = self.ranges["N"], self.ranges["D"]
        return float(np.sqrt(low_D * high_D / (low_N * high_N)))


@dataclass(frozen=True)
class Laws:
    """All subsets' laws.

    Attributes
    ----------
    laws : of the subsets with a surface.
    missing : the subsets without one, and why.
    sample : what D counts.
    lines : of those of `missing` whose loss is a law of one variable.
    levels : of the intervals that the fit was asked for, in %.
    """

    laws: dict[str, Law]
    missing: dict[str, str]
    sample: str
    lines: dict[str, Line] = field(default_factory=dict)
    levels: Sequence[float] = ()


def of(fitted: FitResult | str | Path) -> Laws:
    """Laws of a fit, or of the folder it was saved to; UsageError as in `saved_fit.of_folder`."""
    return _laws(saved_fit.of(fitted))


def check_subset(laws: Laws, subset: str) -> None:
    """Refuse a subset that was not fitted.

    Parameters
    ----------
    laws : all that were.
    subset : its name; empty: all.

    Raises
    ------
    UsageError
        There is no such subset.
    """
    known = [*laws.laws, *laws.missing]
    if subset and subset not in known:
        raise UsageError(f"no subset {subset!r} in these results; there are {', '.join(known)}")


def of_estimate(found: Estimate, frame: pd.DataFrame) -> Law:
    """The law of one subset's estimate, without the checks that a whole fit makes (for simulations).

    Parameters
    ----------
    found : the estimate; it has a surface.
    frame : the selected rows that it was made of.
    """
    surface = found.task.surface
    assert surface is not None
    return Law(
        name=found.task.name,
        cost=found.task.cost,
        surface=surface,
        replicates=surfaces_of(found.draws, surface.form),
        method=found.method,
        dof=np.inf if found.replicates is None else found.replicates.dof,
        scatter=found.scatter,
        **_runs(behind(frame, found.task.curves)),
    )


def _laws(fit: SavedFit) -> Laws:
    results, draws = fit.results, fit.draws
    laws, missing, lines = {}, {}, {}
    three = results["settings"]["approach3"]
    form = pinned_form(three["form"], three.get("pin", {}))
    rows = fitted_of(results, fit.losses)
    for name, entry in results["subsets"].items():
        three = entry[NAME]
        law = entry.get(LAW)
        if law is not None and law["surface"] is not None:
            lines[name] = _line(name, law, draws.get(name, {}), rows[name], results)
            missing[name] = f"{law['reason']}: its loss is a law of {law['variable']} alone; predict with it"
            continue
        if three["a"]["value"] is None:
            missing[name] = next(
                (text for text in entry["warnings"] if "approach 3" in text), "approach 3 not fitted"
            )
            continue
        if "surface" not in three:
            raise UsageError(
                f"{results['source']}: its results.json was written by jetscale"
                f" {results['version']}, which did not"
                " keep the surface; run `python -m jetscale.analysis` again"
            )
        surface = Surfaces.from_theta(np.array([[three["surface"][key] for key in form.parameters]]), form)
        found = draws.get(name, {})
        laws[name] = Law(
            name=name,
            cost=Cost.from_json(three["cost"]),
            surface=surface,
            replicates=surfaces_of(found, form),
            method=entry["method"],
            dof=np.inf if entry["dof"] is None else entry["dof"],
            scatter=Scatter.from_json(entry["scatter"]) if "scatter" in entry else None,
            missed=_missed(entry.get("lack_of_fit")),
            **_runs(rows[name]),
        )
    levels = results["settings"]["uncertainty"].get("levels", ())
    return Laws(laws, missing, results["sample"], lines, levels)


def _missed(test: dict[str, Any] | None) -> float:
    """What the form misses, by the test of fit; 0 where it is not significant."""
    if test is None or test["p_value"] >= SIGNIFICANT:
        return 0.0
    return float(test["bend_rms"])


def _line(
    name: str, law: dict[str, Any], draws: dict[str, Array], fitted: Fitted, results: dict[str, Any]
) -> Line:
    theta = np.array([[law["surface"][key] for key in POWER_LAW.parameters]])
    found = {name: draws[f"{LAW}.{name}"] for name in POWER_LAW.reported if f"{LAW}.{name}" in draws}
    return Line(
        name=name,
        symbol=law["variable"],
        reason=law["reason"],
        law=Surfaces(theta, POWER_LAW),
        replicates=Surfaces(POWER_LAW.theta_of(found), POWER_LAW) if found else None,
        method=law["method"],
        dof=np.inf if law["dof"] is None else law["dof"],
        scatter=None if law["scatter"] is None else Scatter.from_json(law["scatter"]),
        ranges=fitted.reach,
        absent=tuple(results.get("absent", ())),
        k=results["flops_per_param_sample"],
    )


def _runs(fitted: Fitted) -> dict[str, Any]:
    frame = fitted.rows
    return {
        **{f"{axis}_range": ends for axis, ends in fitted.reach.items()},
        "dims": frame["dim"].to_numpy(float),
        "sizes": frame["n_params"].to_numpy(float),
        "row_N": np.log(frame["n_params"].to_numpy(float)),
        "row_D": np.log(frame["jets"].to_numpy(float)),
        "row_run": frame["run"].to_numpy(dtype=object),
        "pretrain_jets": float(frame["pretrain_jets"].max()) if "pretrain_jets" in frame else 0.0,
        "rate": float(frame["rate"].median()) if "rate" in frame else float("nan"),
    }
