"""Sweeps over learning rates: `analyse` finds the best rate of every width, and a rule through them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.answers import rate_rule
from jetscale.analysis.answers.rate_rule import Best, Rule, Scan, scan
from jetscale.analysis.tables.loading import load_losses
from jetscale.analysis.tables.loss_table import names_of_groups
from jetscale.analysis.tables.selection import of_weights
from jetscale.analysis.tables.variants import told, without
from jetscale.common.usage import UsageError
from jetscale.runs.layout import CONFIG, DONE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rates:
    """What a sweep says on learning rates.

    Attributes
    ----------
    source, weights : what was read.
    variance, dof : of ln L of a run, pooled; None where no rate has two seeds.
    best : optima by subset, one a width.
    rules : by subset; None where fewer than two widths have an optimum inside the grid.
    joint : one rule for all subsets; None for a single subset too.
    differ : F test of one rule against one each.
    """

    source: str
    weights: str
    variance: float | None
    dof: int
    best: dict[str, list[Best]]
    rules: dict[str, Rule | None]
    joint: Rule | None
    differ: dict[str, Any] | None
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Content of rates.json."""
        from jetscale import __version__

        return {
            "version": __version__,
            "source": self.source,
            "weights": self.weights,
            "run_sd": None if self.variance is None else float(np.sqrt(self.variance)),
            "run_sd_dof": self.dof,
            "subsets": {
                name: {"widths": [_width(one, self.dof) for one in found], "rule": _rule(self.rules[name])}
                for name, found in self.best.items()
            },
            "joint": _rule(self.joint),
            "subsets_differ": self.differ,
            "warnings": self.warnings,
        }


def _rule(found: Rule | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "base": found.base,
        "dim": found.dim,
        "power": found.power,
        "widths": found.widths,
        "chi2": found.chi2,
        "dof": found.dof,
        "override": found.override,
    }


def _width(found: Best, dof: int) -> dict[str, Any]:
    inside, rate = found.status == "interior", float(np.exp(found.log_rate))
    return {
        "dim": found.scan.dim,
        "status": found.status,
        "best": found.rate(dof) if inside else None,
        "bound": None if inside else rate,
        "optimum": found.side,
        "penalty_of_paper_rate": found.penalty,
        "rates": found.scan.rates,
        "log_loss": found.scan.log_L,
        "seeds": found.scan.seeds,
    }


def analyse(path: Path, weights: str = "") -> Rates:
    """Read the runs below `path` and find best rates and rules.

    Parameters
    ----------
    path : folder of the sweep.
    weights : raw or ema; empty: ema where the runs have it.

    Raises
    ------
    UsageError
        See `jetscale.analysis.load_losses`; also runs that differ in more than rate, width, seed and subset.
    """
    losses = load_losses(path, "local")
    by_rate, losses = losses, replace(losses, frame=_rates_joined(losses.frame))
    parts = [of_weights(frame, weights, losses) for frame in losses.groups().values()]
    last = [part.loc[part.groupby("run")["step"].idxmax()] for part in parts]
    warnings = [text for text in losses.warnings if text not in told(by_rate.frame)] + told(losses.frame)
    named = [pair for frame in last for pair in _scans(frame, path, warnings)]
    scans = [one for _, one in named]
    warnings += _far_off(named)
    variance, dof = rate_rule.run_variance(scans)
    best: dict[str, list[Best]] = {}
    for one in scans:
        best.setdefault(one.subset, []).append(rate_rule.best(one, variance, dof))
    every = [one for found in best.values() for one in found]
    dim = rate_rule.reference_width(every)
    return Rates(
        source=str(path),
        weights=str(last[0]["weights"].iloc[0]),
        variance=variance,
        dof=dof,
        best=best,
        rules={name: rate_rule.rule(found, dof, dim) for name, found in best.items()},
        joint=rate_rule.rule(every, dof, dim) if len(best) > 1 else None,
        differ=rate_rule.subsets_differ(list(best.values()), dof, dim),
        warnings=warnings,
    )


def _far_off(named: list[tuple[list[str], Scan]]) -> list[str]:
    """Name runs whose last loss neither their rate nor their seed explains, such as diverged ones."""
    found = []
    for number, runs, residual in rate_rule.far_off([one for _, one in named]):
        names, one = named[number]
        called = " or ".join(names[run] for run in runs)
        found.append(
            f"run {called} ends at a loss that is a factor {np.exp(residual):.3g} from what its rate and seed"
            f" explain; it widens every interval and can move the optimum of {one.subset} dim={one.dim}:"
            " look at its losses, and train it again"
        )
    return found


def _rates_joined(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs that differ in the rate of fine-tuning alone are one scan: the rate is its axis, no variant."""
    variants = {variant: without(variant, "finetune.lr") for variant in frame["variant"].unique()}
    return frame.assign(variant=frame["variant"].map(variants))


def _scans(frame: pd.DataFrame, path: Path, warnings: list[str]) -> list[tuple[list[str], Scan]]:
    """One scan a width of a subset's last evaluations, each with the names of its runs."""
    unknown = frame[~np.isfinite(frame["lr"])]
    if len(unknown):
        raise UsageError(
            f"{path / unknown['run'].iloc[0]}: its learning rate is not known: {DONE} lacks lr, and"
            f" finetune.lr of {CONFIG} is no number"
        )
    found = []
    for (subset, _), runs in frame.groupby([names_of_groups(frame), "dim"]):
        where = f"{subset} dim={runs['dim'].iloc[0]:.0f}"
        _require_alike(runs, where, path)
        seeds = sorted(runs["seed"].unique())
        for rate, of_rate in runs.groupby("lr"):
            lacking = sorted(set(seeds) - set(of_rate["seed"]))
            if lacking:
                warnings.append(f"{where}: rate {rate:g} lacks seed {', '.join(lacking)}")
        lr, log_L = runs["lr"].to_numpy(float), np.log(runs["loss"].to_numpy(float))
        one = scan(str(subset), int(runs["dim"].iloc[0]), lr, list(runs["seed"]), log_L)
        found.append(([str(name) for name in runs["run"]], one))
    return found


def _require_alike(runs: pd.DataFrame, where: str, path: Path) -> None:
    """Hold that runs of one width differ in rate and seed alone, as far as the table tells."""
    twice = runs[runs.duplicated(["lr", "seed"], keep=False)].sort_values(["lr", "seed"])
    if len(twice):
        first, second = twice["run"].iloc[:2]
        raise UsageError(
            f"{path}: {first} and {second} have one rate and one seed, so they differ in something else; give"
            " the folder of one such scan"
        )
    if runs["jets"].nunique() > 1:
        ends = f"{runs['jets'].min():,.0f} to {runs['jets'].max():,.0f} jets"
        raise UsageError(f"{path}: runs of {where} end at {ends}; their last losses cannot be compared")
