"""`python -m jetscale.analysis`: loss table to exponents, figures and report."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

from jetscale.analysis.settings import ColumnSettings, FitSettings, WandbSettings
from jetscale.common.cli import parse, run
from jetscale.common.fields import Range
from jetscale.common.progress import Progress, on_terminal, step, to_stderr, waiting
from jetscale.common.usage import UsageError

PROGRAM = "python -m jetscale.analysis"


@dataclass
class Command(FitSettings):
    """Compute-optimal exponents of a set of training runs.

    Writes results.json, losses.parquet, losses-blocks.parquet, replicates.parquet, figures/ and report.html.
    source=table path=OUT/losses.parquet fits that again, to the same numbers.

    Attributes
    ----------
    source : local (run directories), table (.csv, .json, .xlsx, .parquet and more), wandb (the API),
        wandb-offline (folders), or one of your own that --trust MODULE registers.
    path : the folder or file; entity/project for wandb.
    out : folder to write to; PATH/analysis for source=local.
    columns : names of a table's columns, such as columns.N="Model Size"; columns.run= does without the one
        there.
    where : pandas query that selects rows, of a table ("tokens > 1e9") or of runs ("dim <= 32").
    held_out : rows to predict instead of fitting: a pandas query, or another table of the same columns.
    flops_per_param_sample : k of C = k N D, for tables that give only one of D and C.
    best_of_cell : of a table's rows of one subset, N, D and seed, keep the one with the lowest loss.
    unfinished : take runs without done.json too.
    report : draw the figures and write report.html; false: the numbers alone, in seconds.
    wandb : for source=wandb: group, filters (JSON), refresh (the answer is kept in OUT/wandb.parquet).
    weights : raw or ema; empty: ema where the runs have it.
    n_params : definition of N: total, or kinds joined by +, such as blocks+head.
    flops : paper (6 N 40 a jet) or constituents (6 N per constituent seen).
    drop_largest : leave out that many rows with the largest losses, per subset.
    blocks : join neighbouring test blocks to so many before the fit (a smaller file); 0: as they are.
    multiverse : fit again under every other reasonable choice, for one table of what moves the answer.
    joint : all subsets in one model too: shared (of L_inf, A, B, alpha, beta), replicates; joint=false: not.
    curves : loss curves to points: curves=off (every row is a point; what tables not of jetscale get unless
        asked) or curves=paper (what runs get), and each step by itself: smooth and bin (in ln D; in parts of
        the schedule), average_seeds, running_minimum, drop (steps; -1: the warm-up), cut_plateau, points (a
        curve, 0: all).
    approach1 : envelope (hull, record-low or bins), bins.
    approach2 : slices, window (factor of N about the lowest loss, 0: all), min_points, tolerance (of ln C).
    approach3 : objective (huber, squared or absolute), delta, residual (log or raw), form (separate, tied:
        alpha = beta, coupled, or one of your own that --trust MODULE registers), pin (values that parameters
        are held at, such as approach3.pin.alpha=0.34).
    uncertainty : method (auto, hierarchical, wild, runs or none), replicates, test_jet_samples,
        test_jet_fraction (the paper's error; 0 samples: none), profile, levels (of the intervals, in %: 95
        always, [80, 90, 95] two more), seed.
    """

    source: str = "local"
    path: str = ""
    out: str = ""
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    where: str = ""
    held_out: str = ""
    flops_per_param_sample: Annotated[float, Range(0, 1e12, without="low")] = 6.0
    best_of_cell: bool = False
    unfinished: bool = False
    report: bool = True
    wandb: WandbSettings = field(default_factory=WandbSettings)

    def fit_settings(self) -> FitSettings:
        """Return the part that `fit` needs."""
        return FitSettings(**{part.name: getattr(self, part.name) for part in fields(FitSettings)})


_SHORT = {"curves": "curves.protocol", "joint": "joint.on"}


_DRAWN = ("forest", "overview", "subset_*", "residuals_*", "losses", "gain", "multiverse")
"""Figures that a report draws."""


def _spelt_out(argument: str) -> str:
    """``curves.protocol=off`` of ``curves=off``, ``joint.on=false`` of ``joint=false``."""
    key, equals, value = argument.partition("=")
    return f"{_SHORT[key]}={value}" if key in _SHORT and equals else argument


def _remove_drawn(out: Path) -> None:
    """Report and figures of an earlier fit, which would tell of other numbers than results.json."""
    (out / "report.html").unlink(missing_ok=True)
    for name in _DRAWN:
        for suffix in (".svg", ".png"):
            for path in (out / "figures").glob(name + suffix):
                path.unlink()


def _on_terminal(text: str) -> None:
    """Say something where a person watches."""
    if on_terminal():
        to_stderr(f"analysis: {text}")


def _size(groups: int, settings: FitSettings, report: bool) -> float:
    """How much work a fit and its report are, in units of the fit of one subset."""
    from jetscale.analysis.answers.fit_table import CHOICES, JOINT

    each = 1.0 + CHOICES * settings.multiverse + JOINT * (settings.joint.on and groups > 1)
    if report:  # else nothing that draws is imported
        from jetscale.analysis.output.report import DRAWN

        each += DRAWN
    return groups * each


def main(argv: Sequence[str]) -> None:
    """Run the program.

    Raises
    ------
    UsageError
        See `load_losses` and `fit`; also a missing path or out.
    """
    command = parse(Command, [_spelt_out(argument) for argument in argv], PROGRAM)
    if not command.path:
        raise UsageError("path=... is needed; see --help")
    if not command.out and command.source != "local":
        raise UsageError(f"out=... is needed for source={command.source}: the folder to write the results to")
    out = Path(command.out) if command.out else Path(command.path) / "analysis"

    with waiting("importing pandas and SciPy", _on_terminal):
        from jetscale.analysis.answers.fit_table import fit
        from jetscale.analysis.fitting.pins import form_of
        from jetscale.analysis.joint.sharing import checked_names
        from jetscale.analysis.tables.loading import load_with_held_out

    form_of(command.approach3)  # a name that does not exist is refused before anything is read
    checked_names(command.joint.shared)
    with waiting(f"reading {command.path}", _on_terminal):
        losses, held_out = load_with_held_out(
            command.path,
            command.held_out,
            command.source,
            where=command.where,
            columns=command.columns,
            flops_per_param_sample=command.flops_per_param_sample,
            best_of_cell=command.best_of_cell,
            unfinished=command.unfinished,
            wandb=command.wandb,
            cache=out / "wandb.parquet",
        )
    settings = command.fit_settings()
    with Progress("analysis", _size(len(losses.groups()), settings, command.report), "", say=None):
        result = fit(losses, settings, held_out=held_out)
        step("writing results.json", 0)
        result.save(out)
        written = [out / "results.json"]
        _remove_drawn(out)
        if command.report:
            from jetscale.analysis.output.report import write_report

            written.append(write_report(result, out))
    sys.stdout.write("\n".join(map(str, [result, *written])) + "\n")


if __name__ == "__main__":
    # The matrices of a fit are small: threads would only wait for each other.
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(200_000)  # importing pandas and SciPy makes as many objects, none of them garbage
    raise SystemExit(run(main, PROGRAM))
