"""Settings of an analysis: one dataclass, its fields the keys of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from typing import Annotated

from jetscale.common.fields import SEED, OneOf, Range
from jetscale.common.usage import UsageError

WEIGHTS = OneOf("raw", "ema", "")
LEVEL = Range(1, 99.9)  # of an interval, in %
AMOUNT = Range(0, 1e60)  # of FLOPs, parameters, jets, losses and the like, where 0 is: not given
_UPTO = Range(0, 1_000_000)


@dataclass
class ColumnSettings:
    """Names of a table's columns; null: found by their usual names (see docs/analysis.md).

    Given but empty (``columns.run=``), a column that is there is not used. Runs, seeds and subsets may be
    named by several columns, joined by commas: ``columns.run="model,seed"``.

    Attributes
    ----------
    N : parameters.
    D : training examples seen (jets, tokens); C / (k N) where there is no such column.
    C : training compute, FLOPs; k N D where there is no such column.
    loss : test loss.
    run : name of the run; without it every row is a separate run.
    seed : seed of the run.
    subset : rows of each value are fitted apart.
    weight : weight of each point in the fit; 1 without such a column.
    D_pre : jets (tokens) of pretraining, 0 from scratch; several in one subset are fitted apart.
    """

    N: str | None = None
    D: str | None = None
    C: str | None = None
    loss: str | None = None
    run: str | None = None
    seed: str | None = None
    subset: str | None = None
    weight: str | None = None
    D_pre: str | None = None


@dataclass
class WandbSettings:
    """Which runs of a W&B project.

    Attributes
    ----------
    group : only runs of this group; empty: all.
    filters : W&B's filter of runs, as JSON; empty: none.
    refresh : ask the server anew, whatever OUT/wandb.parquet holds.
    """

    group: str = ""
    filters: str = ""
    refresh: bool = False


@dataclass(frozen=True)
class CurveSteps:
    """Every step from curves to points, decided; the defaults do nothing. Fields as in `CurveSettings`."""

    smooth: float = 0.0
    bin: float = 0.0
    average_seeds: bool = False
    running_minimum: bool = False
    drop: float = 0.0
    cut_plateau: bool = False
    points: int = 0


PAPER_STEPS = CurveSteps(
    smooth=0.05, bin=1 / 600, average_seeds=True, running_minimum=True, drop=-1.0, cut_plateau=True, points=60
)


@dataclass
class CurveSettings:
    """Loss curves to fit points: one switch for all steps, and each step by itself.

    Attributes
    ----------
    protocol : off (every row is a point), paper (the steps of arXiv:2606.19781) or auto: paper for runs of
        jetscale, off for other tables. A step that is given (not null) is done as given. `curves=off` is
        short.
    smooth : half-width in ln D of the local line; 0: off; paper: 0.05.
    bin : width of a bin as a share of the schedule; 0: off; paper: 1/600.
    average_seeds : average ln L over the seeds of one size; paper: true.
    running_minimum : take the lowest loss so far; paper: true.
    drop : steps dropped at the start; -1: the warm-up; paper: -1.
    cut_plateau : where a plateau is seen at the start, drop it: up to where the slope of ln L first reaches
        half of the steepest; paper: true.
    points : at most so many a curve, even in ln D; 0: all; paper: 60.
    """

    protocol: Annotated[str, OneOf("auto", "off", "paper")] = "auto"
    smooth: Annotated[float | None, Range(0, 100)] = None
    bin: Annotated[float | None, Range(0, 1)] = None
    average_seeds: bool | None = None
    running_minimum: bool | None = None
    drop: Annotated[float | None, Range(-1, 1e15)] = None
    cut_plateau: bool | None = None
    points: Annotated[int | None, _UPTO] = None

    def steps(self, own_runs: bool) -> CurveSteps:
        """Return what is done, for a table of jetscale's own runs or for another one.

        Raises
        ------
        UsageError
            An unknown protocol.
        """
        if self.protocol not in ("auto", "off", "paper"):
            raise UsageError(f"curves.protocol={self.protocol!r}: choose auto, off or paper")
        paper = self.protocol == "paper" or (self.protocol == "auto" and own_runs)
        given = {step.name: getattr(self, step.name) for step in fields(CurveSteps)}
        given = {name: value for name, value in given.items() if value is not None}
        return replace(PAPER_STEPS if paper else CurveSteps(), **given)

    def resolved(self, own_runs: bool) -> CurveSettings:
        """Return these settings with every step decided."""
        steps = asdict(self.steps(own_runs))
        paper = self.protocol == "paper" or (self.protocol == "auto" and own_runs)
        return CurveSettings("paper" if paper else "off", **steps)


@dataclass
class Approach1Settings:
    """The envelope of all (C, loss) points.

    Attributes
    ----------
    envelope : hull, record-low or bins.
    bins : log-spaced bins of C, for envelope=bins.
    """

    envelope: Annotated[str, OneOf("hull", "record-low", "bins")] = "hull"
    bins: Annotated[int, Range(2, 1_000_000)] = 30


@dataclass
class Approach2Settings:
    """IsoFLOP profiles.

    Attributes
    ----------
    slices : budgets at which curves are cut, even in ln C; tables of nominal budgets have their own.
    window : only sizes within this factor of the one with the lowest loss; 0: all.
    min_points : sizes that a slice needs.
    tolerance : spread of ln C up to which runs count as of one nominal budget.
    """

    slices: Annotated[int, Range(1, 10_000)] = 10
    window: Annotated[float, Range(0, 1e12)] = 0.0
    min_points: Annotated[int, Range(3, 10_000)] = 4
    tolerance: Annotated[float, Range(0, 100)] = 0.1


@dataclass
class Approach3Settings:
    """The parametric surface.

    Attributes
    ----------
    objective : penalty of a residual: huber, squared or absolute.
    delta : where Huber's penalty turns linear, in units of the residual.
    residual : log (of ln L) or raw (of L).
    form : separate, tied (alpha = beta), coupled (arXiv:2001.08361 with a floor), or one of your own that
        ``--trust MODULE`` registers.
    pin : values that parameters are held at instead of being fitted, by their names in results.json:
        ``approach3.pin.alpha=0.34``.
    """

    objective: Annotated[str, OneOf("huber", "squared", "absolute")] = "huber"
    delta: Annotated[float, Range(0, 1e6, without="low")] = 1e-3
    residual: Annotated[str, OneOf("log", "raw")] = "log"
    form: str = "separate"
    pin: dict[str, Annotated[float, Range(-1e300, 1e300)]] = field(default_factory=dict)


@dataclass
class UncertaintySettings:
    """Replicates and what they resample.

    Attributes
    ----------
    method : auto, hierarchical, wild, runs or none.
    replicates : refits behind an interval.
    test_jet_samples : samples of the paper's error over test jets, reported beside; 0: none.
    test_jet_fraction : share of the test jets in each of them.
    profile : profile likelihood beside.
    levels : of the intervals, in %; that of 95% is always given, [80, 90, 95] adds two more.
    seed : of the resampling.
    """

    method: Annotated[str, OneOf("auto", "hierarchical", "wild", "runs", "none")] = "auto"
    replicates: Annotated[int, Range(2, 10_000_000)] = 1000
    test_jet_samples: Annotated[int, _UPTO] = 100
    test_jet_fraction: Annotated[float, Range(0, 1, without="low")] = 0.8
    profile: bool = True
    levels: list[Annotated[float, LEVEL]] = field(default_factory=lambda: [95.0])
    seed: Annotated[int, SEED] = 0


@dataclass
class JointSettings:
    """All subsets in one model. `joint=false` is short for ``joint.on=false``.

    Attributes
    ----------
    on : whether tables of two subsets or more are fitted jointly too.
    shared : parameters that all subsets have in common: of L_inf, A, B, alpha and beta.
    replicates : refits behind its intervals and tests, at most; no more than `uncertainty.replicates`.
    """

    on: bool = True
    shared: list[str] = field(default_factory=lambda: ["alpha", "beta"])
    replicates: Annotated[int, Range(2, 1_000_000)] = 100


@dataclass
class FitSettings:
    """What `fit` may be told.

    Attributes
    ----------
    curves : see `CurveSettings`.
    weights : which weights of the runs were evaluated: ema or raw; empty: ema where the runs have it.
    n_params : definition of N: total, or kinds of done.json joined by +, such as blocks+head.
    flops : compute of a run: paper (6 N 40 per jet) or constituents (6 N per constituent seen).
    drop_largest : leave out the rows with the largest losses, that many per subset.
    blocks : join neighbouring test blocks to so many before the fit; 0: as the runs wrote them.
    multiverse : fit again under every other reasonable choice.
    joint : see `JointSettings`.
    """

    curves: CurveSettings = field(default_factory=CurveSettings)
    approach1: Approach1Settings = field(default_factory=Approach1Settings)
    approach2: Approach2Settings = field(default_factory=Approach2Settings)
    approach3: Approach3Settings = field(default_factory=Approach3Settings)
    uncertainty: UncertaintySettings = field(default_factory=UncertaintySettings)
    weights: Annotated[str, WEIGHTS] = ""
    n_params: str = "total"
    flops: Annotated[str, OneOf("paper", "constituents")] = "paper"
    drop_largest: Annotated[int, _UPTO] = 0
    blocks: Annotated[int, _UPTO] = 0
    multiverse: bool = True
    joint: JointSettings = field(default_factory=JointSettings)


def check_amounts(**amounts: object) -> None:
    """Refuse amounts (FLOPs, hours, jets, losses) that the command would refuse too.

    Parameters
    ----------
    amounts : by name; 0: not given.

    Raises
    ------
    UsageError
        Not a number, not finite, negative, or beyond what anything could be.
    """
    for name, value in amounts.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not AMOUNT.holds(value):
            raise UsageError(f"{name}={value!r}: must be a number {AMOUNT}")


def check_levels(levels: Sequence[object]) -> None:
    """Refuse levels of intervals that are none, in %; UsageError."""
    for level in levels:
        if not isinstance(level, Real) or not LEVEL.holds(level):
            raise UsageError(f"levels={list(levels)}: {level!r} must be a number {LEVEL}, in %")
