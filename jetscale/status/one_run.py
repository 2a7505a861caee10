"""One run: its state, how far it is, how fast, and what it last measured."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from jetscale.runs.done import DamagedRun, read_identity
from jetscale.status.owner import Owner, Owners
from jetscale.status.reading import Reader, number, whole

STATES = ("done", "running", "failed", "interrupted", "waiting")
PHASES = ("pretrain", "finetune")
_PLACE = re.compile(r"(?P<subset>[^/]+)/dim=(?P<dim>\d+)/seed=(?P<seed>\d+)(?:/(?P<variant>.+))?$")


@dataclass(frozen=True)
class Place:
    """Where a run is in the grid; `variant` names overrides beyond subset, width and seed."""

    subset: str
    dim: int
    seed: int
    variant: str = ""


@dataclass
class RunStatus:
    """One run.

    Attributes
    ----------
    directory : relative to the sweep
    place : subset, width, seed
    state : one of `STATES`
    phase : what a running run does, or where it stopped: ``pretrain``, ``finetune``, or None before the first
        line
    steps : of each phase, as planned; a phase that is not made is 0, None where unknown
    made : steps made, by phase
    seconds_per_step : measured, evaluations included, by phase
    jets_per_second : of the phase now, evaluations excluded
    test_loss : newest, by weights
    owner : the living process
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
    def progress(self) -> float | None:
        """Steps made over steps to make, both phases together; None where the steps are unknown."""
        if self.state == "done":
            return 1.0
        planned = [self.steps[phase] for phase in PHASES]
        total = sum(steps or 0 for steps in planned)
        if None in planned or total == 0:
            return None
        return min(1.0, sum(self.made.values()) / total)


def place_of(path: Path) -> Place | None:
    """Subset, width and seed from a run directory's path; None for another kind of folder."""
    found = _PLACE.search(path.as_posix())
    if found is None:
        return None
    return Place(found["subset"], int(found["dim"]), int(found["seed"]), found["variant"] or "")


def read_run(run: RunStatus, path: Path, library: Path, reader: Reader, owners: Owners) -> None:
    """Fill in what directory `path` says of `run`; `library` holds the backbones."""
    damage = ""
    try:
        done = reader.done(path)
    except DamagedRun as error:
        done, damage = None, str(error)
    if done is not None:
        _take_done(run, done.content)
        run.verified = done.verified
        return
    run.owner = owners.of(path)
    failed = (path / "failed.json").exists()
    if damage:
        failure: dict[str, Any] | None = {"error": "damaged", "message": f"{damage}; restore or remove it"}
        run.state = "failed"
    else:
        failure = reader.json_object(path / "failed.json")
        begun = any((path / name).exists() for name in ("identity.json", "owner.json", "metrics.jsonl"))
        run.state = "running" if run.owner else "failed" if failed else "interrupted" if begun else "waiting"
    if run.state == "failed":
        run.error = _one_line(failure)
    if run.state == "waiting":
        return
    try:
        read_identity(path)
    except DamagedRun as error:
        reader.note(str(error))
    config = _config(path / "config.yaml", reader) if None in run.steps.values() or run.owner else {}
    _take_steps(run, config)
    _take_lines(run, reader.last_lines(path / "metrics.jsonl"))
    if run.state == "running" and run.phase is None and run.steps["pretrain"] != 0:
        _take_backbone(run, config, library, reader, owners)


def _take_done(run: RunStatus, done: dict[str, Any]) -> None:
    run.state = "done"
    run.phase = "finetune"
    if isinstance(done.get("variant"), str) and not run.place.variant:
        run.place = replace(run.place, variant=done["variant"])
    final = done.get("final")
    if isinstance(final, dict):
        losses = {str(weights): number(value, "loss") for weights, value in final.items()}
        run.test_loss = {weights: loss for weights, loss in losses.items() if loss is not None}
    for phase, record in (("finetune", done), ("pretrain", done.get("pretrain"))):
        steps, seconds = whole(record, "steps"), number(record, "seconds")
        run.steps[phase] = run.made[phase] = steps or 0
        if steps and seconds and seconds > 0:
            run.seconds_per_step[phase] = seconds / steps
    jets, seconds = number(done, "jets"), number(done, "seconds")
    run.jets_per_second = jets / seconds if jets and seconds and seconds > 0 else None


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
    """Jets a second over the last lines, without the time from a line to the next of the same jet.

    That is an evaluation. Times are the lines' own: wall time of the phase, which no set clock turns back.
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


def _take_backbone(
    run: RunStatus, config: dict[str, Any], library: Path, reader: Reader, owners: Owners
) -> None:
    """Progress of the pretraining that `run` makes, or waits for: the newest living one of its name."""
    seed = whole(config, "pretrain", "seed")
    name = f"{run.place.subset}-dim={run.place.dim}-seed={run.place.seed if seed is None else seed}-*"
    named = config.get("pretrain", {}).get("library") if isinstance(config.get("pretrain"), dict) else None
    # as the run sees it: relative to where the sweep was started, of which multirun/ is a folder
    places = [library] if not named else [library.parent.parent / str(named), library]
    found = {folder for place in places for folder in place.glob(name) if owners.of(folder)}
    if not found:
        return
    run.phase = "pretrain"
    newest = max(found, key=_begun)
    lines = [line for line in reader.last_lines(newest / "metrics.jsonl") if line.get("phase") == "pretrain"]
    _take_lines(run, lines)


def _begun(folder: Path) -> float:
    try:
        return (folder / "identity.json").stat().st_mtime
    except OSError:
        return 0.0


def _config(path: Path, reader: Reader) -> dict[str, Any]:
    import yaml  # 30 ms, and only for runs that are neither done nor planned

    try:
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reader.note(f"{path} cannot be read ({' '.join(str(error).split())})")
        return {}
    return content if isinstance(content, dict) else {}


def _one_line(failure: dict[str, Any] | None) -> str:
    if failure is None:
        return "failed.json cannot be read"
    message = str(failure.get("message", "")).strip().splitlines()
    return f"{failure.get('error', 'error')}: {message[0] if message else ''}".rstrip(": ")
