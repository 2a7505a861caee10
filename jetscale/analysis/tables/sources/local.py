"""Loss table of run directories; every file is verified first (`jetscale.runs.done`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.tables.loss_table import LossTable, checked
from jetscale.analysis.tables.origins import Origin, origin_of
from jetscale.analysis.tables.sources.block_files import block_losses, join, read_phase
from jetscale.analysis.tables.test_blocks import BlockLosses
from jetscale.analysis.tables.variants import JETS, only_varying, settings_of, text_of
from jetscale.common.files import DamagedFile
from jetscale.common.paper import FLOPS_PER_PARAM_JET
from jetscale.common.usage import UsageError
from jetscale.runs.config_file import read_config
from jetscale.runs.done import Done, read_done, read_identity
from jetscale.runs.layout import BLOCKS, CONFIG, DONE, METRICS
from jetscale.runs.metrics import check_final, read_metrics
from jetscale.runs.record import PretrainRecord, RunRecord, from_json
from jetscale.runs.search import folders_below

if TYPE_CHECKING:
    import pandas as pd

WAY_OUT = "put back an undamaged copy of it, or remove the run's folder to make it anew"
NOT_DONE = from_json(RunRecord, {}, Path(DONE), complete=False)
"""Record of a run that is not finished: nothing is known."""
NO_PRETRAINING = from_json(PretrainRecord, {}, Path(DONE), complete=False)


def load(path: Path, *, unfinished: bool = False, phase: str = "finetune") -> LossTable:
    """Read every run below `path`.

    Parameters
    ----------
    path : a sweep folder, or any folder above or below run directories.
    unfinished : take runs without done.json too (their curves so far).
    phase : which phase's losses; fine-tuning is the paper's.

    Returns
    -------
    The loss table, checked.

    Raises
    ------
    UsageError
        No run below `path`; a file of a run that is damaged, missing or of another run, named; a folder that
        cannot be listed, or a link that leads nowhere.
    """
    folders = (
        [folder for folder, names in folders_below(path) if names & {METRICS, DONE}] if path.is_dir() else []
    )
    folders.sort()
    if not folders:
        raise UsageError(f"{path}: no run directory (a folder with {METRICS}) below it")
    return load_folders(folders, path, unfinished=unfinished, phase=phase)


@dataclass(frozen=True)
class RunLosses:
    """What the loss table takes from one run.

    Attributes
    ----------
    name : of the run in the table
    frame : its rows
    settings : those that decide its numbers
    blocks : its block losses, where it has some
    origin : where it comes from, where its record tells
    precision : that ``device.precision=auto`` has chosen; None where it was given, or is not known
    """

    name: str
    frame: pd.DataFrame
    settings: dict[str, str]
    blocks: BlockLosses | None = None
    origin: Origin | None = None
    precision: str | None = None


def load_folders(folders: Sequence[Path], path: Path, *, unfinished: bool, phase: str) -> LossTable:
    """Read run directories.

    Parameters
    ----------
    folders : the run directories, at least one.
    path : a folder above them; they are named relative to it.
    unfinished, phase : as in `load`.

    Returns
    -------
    The loss table, checked.

    Raises
    ------
    UsageError
        As in `load`.
    """
    warnings: list[str] = []
    unverified: list[str] = []
    runs = []
    for folder in folders:
        name = folder.relative_to(path).as_posix()
        run, verified = read_run(folder, name, unfinished=unfinished, phase=phase, warnings=warnings)
        runs += [] if run is None else [run]
        unverified += [] if verified else [name]
    if unverified:
        warnings.append(
            f"{len(unverified)} runs, such as {unverified[0]}, are of an earlier version, without checksums: "
            "their files could not be verified"
        )
    if not runs:
        raise UsageError(f"{path}: {len(folders)} runs, none of them usable: {'; '.join(warnings)}")
    return assembled(runs, str(path), warnings)


def read_run(
    folder: Path, name: str, *, unfinished: bool, phase: str, warnings: list[str]
) -> tuple[RunLosses | None, bool]:
    """Read one run directory, or a copy of one (`jetscale.runs.shared_copy`).

    Parameters
    ----------
    folder : the run directory.
    name : of the run in the table.
    unfinished, phase : as in `load`.
    warnings : what was noticed is added here.

    Returns
    -------
    The run, None where it is left out; and whether its files have checksums, which were compared.

    Raises
    ------
    UsageError
        A file that is damaged, missing or of another run, named.
    """
    done = _finished(folder)
    verified = done is None or done.verified
    if done is None:
        if not unfinished:
            warnings.append(f"run {name} is not finished (no {DONE}); left out, take it with unfinished=true")
            return None, verified
        warnings.append(f"run {name} is not finished; its curve so far is used")
    record = NOT_DONE if done is None else done.record
    config, lines = _config(folder), _lines(folder)
    if wrong := check_final(lines, record.final_losses):
        raise UsageError(f"{folder / DONE} {wrong}; {WAY_OUT}")
    frame = _run(folder, name, phase, lines, _facts(folder, record, config))
    if frame is None:
        warnings.append(f"run {name} has no test loss in phase {phase}; left out")
        return None, verified
    tests = lines if done is not None else _settled(lines)
    blocks = _blocks(folder, name, phase, tests, finished=done is not None)
    origin = None if done is None else origin_of(record, folder / DONE)
    settings = _settings(record, config)
    chosen = record.precision if settings.get("device.precision", "auto") == "auto" else None
    return RunLosses(name, frame, settings, blocks, origin, chosen), verified


def assembled(runs: Sequence[RunLosses], source: str, warnings: list[str]) -> LossTable:
    """The loss table of these runs, checked.

    Parameters
    ----------
    runs : at least one, each under its own name.
    source : where they come from, for messages.
    warnings : what was noticed while reading.
    """
    import pandas as pd

    chosen = Counter(run.precision for run in runs if run.precision is not None)
    if len(chosen) > 1:
        counts = ", ".join(f"{precision} in {count} runs" for precision, count in sorted(chosen.items()))
        warnings.append(
            f"device.precision=auto was {counts}: these runs are fitted as one, though bfloat16 changes "
            "losses a little; runs with device.precision=32-true are alike on every machine"
        )
    table = LossTable(
        frame=pd.concat([run.frame for run in runs], ignore_index=True),
        source=source,
        flops_per_param_sample=FLOPS_PER_PARAM_JET,
        sample="jet",
        warnings=warnings,
        blocks=join([run.blocks for run in runs if run.blocks is not None]),
        settings=only_varying({run.name: run.settings for run in runs}),
        origins={run.name: run.origin for run in runs if run.origin is not None},
    )
    return checked(table)


def _finished(folder: Path) -> Done[RunRecord] | None:
    """The finished run, its files verified; of one that is not finished, only the identity is verified."""
    try:
        done = read_done(folder)
        if done is None or not done.verified:
            read_identity(folder)
        return done
    except DamagedFile as error:
        raise UsageError(f"{error}; {WAY_OUT}") from error


def _config(folder: Path) -> dict[str, Any]:
    """What ``config.yaml`` says."""
    try:
        return read_config(folder)
    except FileNotFoundError as error:
        raise UsageError(f"{folder / CONFIG} is missing; {WAY_OUT}") from error
    except DamagedFile as error:
        raise UsageError(f"{error}; {WAY_OUT}") from error


def _settings(record: RunRecord, config: dict[str, Any]) -> dict[str, str]:
    """What decides the run's numbers; done.json fills in what config.yaml lacks."""
    found = settings_of(config)
    pretrain = record.pretrain or NO_PRETRAINING
    steps_known = pretrain.steps is not None or "pretrain.steps" in found
    told = {
        "finetune.lr": record.lr,
        "finetune.steps": record.steps,
        "finetune.batch_size": record.batch_size,
        "pretrain.steps": pretrain.steps,
        "pretrain.jets": None if steps_known else pretrain.jets,
        "variant": (record.variant or None) if not found else None,
    }
    for key, value in told.items():
        if value is not None and key not in found:
            found[key] = text_of(value)
    for split, jets in (record.jets_from or {}).items():
        phase, _, kind = split.partition("/")
        found[JETS + ("pretrain" if phase == "pretrain" else kind)] = jets.fingerprint[:8]
    return found


def _settled(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of a run that is going on, less its last step's: their block losses may not be there yet."""
    last = max((line["step"] for line in lines if line.get("phase") == "finetune"), default=0)
    return [line for line in lines if line["step"] < last or line.get("phase") != "finetune"]


def _blocks(
    folder: Path, name: str, phase: str, lines: list[dict[str, Any]], finished: bool
) -> BlockLosses | None:
    """Block losses of a run, which must add up to its test losses; None where it has none."""
    path = folder / BLOCKS
    if not path.exists():
        return None
    from jetscale.runs.blocks import block_sums, disagreement

    rows = read_phase(path, phase)
    tests = [line for line in lines if line.get("phase") == phase]
    found = block_sums(rows)
    if not finished:  # written on while we read
        steps = {line["step"] for line in tests}
        found = {key: value for key, value in found.items() if key[0] in steps}
    if wrong := disagreement(tests, found):
        raise UsageError(f"{path} is not of this run, or damaged: it {wrong}; {WAY_OUT}")
    return block_losses(rows, name)


def _lines(folder: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(folder / METRICS)
    except DamagedFile as error:
        raise UsageError(str(error)) from error


def _run(folder: Path, name: str, phase: str, every: list[dict[str, Any]], facts: dict[str, Any]) -> Any:
    import pandas as pd

    lines = [line for line in every if line.get("phase") == phase]
    lines = [line for line in lines if line.get("split") == "test" and line.get("jets", 0) > 0]
    if not lines:
        return None
    frame = pd.DataFrame(lines)
    for column in ("step", "jets", "flops", "loss", "weights", "split"):
        if column not in frame:
            raise UsageError(f"{folder / METRICS}: test lines lack {column!r}")
    numbers = frame[["step", "jets", "flops", "loss"]].astype(float)
    table = numbers.assign(
        run=name,
        subset=facts["subset"],
        dim=float(facts["dim"]),
        seed=str(facts["seed"]),
        warmup=float(facts["warmup"]),
        schedule=float(facts["steps"]),
        pretrain_jets=facts["pretrain_jets"],
        pretrain_constituents=facts["pretrain_constituents"],
        pretrain_n_params=facts["pretrain_n_params"],
        lr=facts["lr"],
        rate=facts["rate"],
        constituents=frame["constituents"].astype(float) if "constituents" in frame else np.nan,
        split=frame["split"],
        weights=frame["weights"],
    )
    total = facts["n_params"].get("total")
    table["n_params"] = float(total) if total else table["flops"] / (FLOPS_PER_PARAM_JET * table["jets"])
    for kind, count in facts["n_params"].items():
        if isinstance(count, int | float):
            table[f"n_params_{kind}"] = float(count)
    return table


def _facts(folder: Path, record: RunRecord, config: dict[str, Any]) -> dict[str, Any]:
    """Who the run is: from config.yaml, and from done.json when it has finished."""

    def select(key: str, default: Any = None) -> Any:
        found: Any = config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return default if found is None else found

    def known(recorded: Any, key: str) -> Any:
        return select(key) if recorded is None else recorded

    facts = {
        "subset": known(record.subset, "subset"),
        "dim": known(record.dim, "model.dim"),
        "seed": known(record.seed, "seed"),
        "n_params": record.n_params or {},
        "warmup": select("finetune.warmup", 0) or 0,
        "steps": select("finetune.steps", 0) or 0,
        **_pretraining(record.pretrain, from_scratch=select("pretrain.composition") is None),
        "lr": _learning_rate(known(record.lr, "finetune.lr")),
        "rate": record.flops / record.seconds if record.flops and record.seconds else np.nan,
    }
    missing = [key for key in ("subset", "dim", "seed") if facts[key] is None]
    if missing:
        raise UsageError(f"{folder}: neither {DONE} nor {CONFIG} gives {', '.join(missing)}")
    return facts


def _pretraining(record: PretrainRecord | None, from_scratch: bool) -> dict[str, float]:
    """What a run's pretraining took: 0 from scratch, NaN where it is not known (the run is not finished)."""
    otherwise = 0.0 if from_scratch else np.nan
    found = record or NO_PRETRAINING
    counts = {
        "pretrain_jets": found.jets,
        "pretrain_constituents": found.constituents,
        "pretrain_n_params": found.n_params_total,
    }
    return {name: otherwise if value is None else float(value) for name, value in counts.items()}


def _learning_rate(peak: Any) -> float:
    """Peak learning rate of fine-tuning, as used or as configured; NaN where that is no number."""
    return float(peak) if isinstance(peak, int | float) else np.nan
