"""One run: its state, how far it is, how fast, and what it last measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from jetscale.runs.done import DamagedRun, read_identity
from jetscale.runs.layout import BEGUN, FAILED, IDENTITY, Place, backbone_name
from jetscale.runs.ownership import Owner
from jetscale.runs.record import PhaseRecord, RunRecord
from jetscale.status.reading import Reader, number, whole

STATES = ("done", "running", "failed", "interrupted", "waiting")
PHASES = ("pretrain", "finetune")


@dataclass
class RunStatus:
    """One run.

    Attributes
    ----------
    directory : relative to the sweep
    place : subset, width, seed and variant
    state : one of `STATES`
    phase : what a running run does, or where it stopped: ``pretrain``, ``finetune``, or None before the first
        line
    steps : planned steps by phase; 0 for a phase that is left out, None where unknown
    made : steps made, by phase
    seconds_per_step : measured, evaluations included, by phase
    jets_per_second : training throughput of the present phase, excluding evaluation time
    test_loss : newest test loss in nats, by weights
    owner : the living process that writes the run
    error : one line
    verified : whether the files of a done run were compared with checksums; False for an earlier version's
    """

    directory: str
    place: Place
    state: str = "waiting"
    phase: str | None = None
    steps: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(PHASES))
    made: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    seconds_per_step: dict[str, float] = field(default_factory=dict)
    jets_per_second: float | None = None
    test_loss: dict[str, float] = field(default_factory=dict)
    owner: Owner | None = None
    error: str | None = None
    verified: bool = True

    @property
    def sweep(self) -> str:
        """The sweep that it belongs to, relative to the folder that is looked at; mostly empty."""
        parts = self.directory.split("/")
        widths = [number for number, part in enumerate(parts) if part.startswith("dim=")]
        return "/".join(parts[: widths[0] - 1]) if widths and widths[0] > 0 else ""

    @property
    def progress(self) -> float | None:
        """Steps made over steps to make, both phases together; None where the steps are unknown."""
        if self.state == "done":
            return 1.0
        planned = [self.steps[phase] for phase in PHASES]
        total = sum(steps or 0 for steps in planned)
        if None in planned or total == 0:
            return None
        return min(1.0, sum(self.made.values()) / total)


def read_run(run: RunStatus, path: Path, library: Path, reader: Reader) -> None:
    """Fill in what a run directory tells of a run.

    Parameters
    ----------
    run : filled in
    path : the run directory
    library : folder of the backbones
    reader : reads the files, and keeps notes of what cannot be read
    """
    damage = ""
    try:
        done = reader.done(path)
    except DamagedRun as error:
        done, damage = None, str(error)
    if done is not None:
        _take_done(run, done.record, reader)
        run.verified = done.verified
        return
    run.owner = reader.owner(path)
    run.state = "failed" if damage else _state(path, run.owner)
    if run.state == "failed":
        run.error = f"damaged: {damage}; restore or remove it" if damage else _failure(path, reader)
    if run.state == "waiting":
        return
    try:
        read_identity(path)
    except DamagedRun as error:
        reader.note(str(error))
    config = reader.config(path) if None in run.steps.values() or run.owner else {}
    _take_steps(run, config)
    _take_lines(run, reader.last_lines(path))
    if run.state == "running" and run.phase is None and run.steps["pretrain"] != 0:
        _take_backbone(run, config, library, reader)


def _state(path: Path, owner: Owner | None) -> str:
    """State of a run that is not finished."""
    if owner is not None:
        return "running"
    if (path / FAILED).exists():
        return "failed"
    return "interrupted" if any((path / name).exists() for name in BEGUN) else "waiting"


def _failure(path: Path, reader: Reader) -> str:
    """The error that stopped a run, as one line."""
    failure = reader.json_object(path / FAILED)
    if failure is None:
        return f"{FAILED} cannot be read"
    message = str(failure.get("message", "")).strip().splitlines()
    return f"{failure.get('error', 'error')}: {message[0] if message else ''}".rstrip(": ")


def _take_done(run: RunStatus, record: RunRecord, reader: Reader) -> None:
    run.state = "done"
    run.phase = "finetune"
    told = {name: getattr(record, name) for name in ("subset", "dim", "seed")}
    place = replace(run.place, **{name: value for name, value in told.items() if value is not None})
    if place != run.place:
        reader.note(f"{run.directory} holds the run {place.title}, and is counted as that one")
    run.place = place if place.variant else replace(place, variant=record.variant or "")
    run.test_loss = record.final_losses
    phases: tuple[tuple[str, PhaseRecord | None], ...] = (("finetune", record), ("pretrain", record.pretrain))
    for name, phase in phases:
        steps, seconds = (phase.steps, phase.seconds) if phase is not None else (None, None)
        run.steps[name] = run.made[name] = steps or 0
        if steps and seconds and seconds > 0:
            run.seconds_per_step[name] = seconds / steps
    run.jets_per_second = (
        record.jets / record.seconds if record.jets and record.seconds and record.seconds > 0 else None
    )


def _take_steps(run: RunStatus, config: dict[str, Any]) -> None:
    for phase in PHASES:
        if run.steps[phase] is None:
            run.steps[phase] = whole(config, phase, "steps")
    pretrain = config.get("pretrain")
    if run.place.subset == "scratch" or (isinstance(pretrain, dict) and not pretrain.get("composition")):
        run.steps["pretrain"] = 0


def _take_lines(run: RunStatus, lines: list[dict[str, Any]]) -> None:
    """Phase, steps, rates and losses from the last metrics lines."""
    lines = [line for line in lines if line.get("phase") in PHASES and whole(line, "step") is not None]
    if not lines:
        return
    last = lines[-1]
    run.phase = phase = str(last["phase"])
    run.made[phase] = whole(last, "step") or 0
    if phase == "finetune":
        run.made["pretrain"] = run.steps["pretrain"] or 0
    for name in PHASES:
        own = [line for line in lines if line["phase"] == name]
        step, seconds = (whole(own[-1], "step"), number(own[-1], "seconds")) if own else (None, None)
        if step and seconds and seconds > 0:
            run.seconds_per_step[name] = seconds / step
    run.jets_per_second = _rate([line for line in lines if line["phase"] == phase])
    for line in lines:
        loss = number(line, "loss")
        if line["phase"] == "finetune" and line.get("split") == "test" and loss is not None:
            run.test_loss[str(line.get("weights"))] = loss


def _rate(lines: list[dict[str, Any]]) -> float | None:
    """Training throughput in jets/s over the last lines, excluding evaluation time.

    Between two lines of the same jet is an evaluation. The times are those in the lines: wall time of the
    phase, which does not depend on clocks that are set.
    """
    points = [(number(line, "jets"), number(line, "seconds")) for line in lines[-40:]]
    known = [(jets, seconds) for jets, seconds in points if jets is not None and seconds is not None]
    jets_made = seconds_taken = 0.0
    for (jets, start), (jets_then, end) in pairwise(known):
        if jets_then > jets and end > start:
            jets_made, seconds_taken = jets_made + jets_then - jets, seconds_taken + end - start
    if seconds_taken == 0.0 and known and known[-1][1] > 0:
        jets_made, seconds_taken = known[-1]
    return jets_made / seconds_taken if jets_made > 0 else None


def _take_backbone(run: RunStatus, config: dict[str, Any], library: Path, reader: Reader) -> None:
    """Progress of the pretraining that `run` makes or waits for: the newest living one of its composition.

    Its folder may have the name that another run gives the composition.
    """
    seed = whole(config, "pretrain", "seed")
    place = run.place
    name = backbone_name("*", place.dim, place.seed if seed is None else seed, "*")
    named = config.get("pretrain", {}).get("library") if isinstance(config.get("pretrain"), dict) else None
    # as the run finds it: relative to where the sweep was started, the folder above multirun/
    folders = [library] if not named else [library.parent.parent / str(named), library]
    living = {backbone for folder in folders for backbone in folder.glob(name) if reader.owner(backbone)}
    found = [backbone for backbone in living if _composition(reader.config(backbone)) == _composition(config)]
    if not found:
        return
    run.phase = "pretrain"
    newest = max(found, key=_begun)
    _take_lines(run, [line for line in reader.last_lines(newest) if line.get("phase") == "pretrain"])


def _composition(config: dict[str, Any]) -> Any:
    pretrain = config.get("pretrain")
    return pretrain.get("composition") if isinstance(pretrain, dict) else None


def _begun(folder: Path) -> float:
    try:
        return (folder / IDENTITY).stat().st_mtime
    except OSError:
        return 0.0
