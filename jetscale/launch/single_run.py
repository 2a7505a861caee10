"""One run as the terminal and the log tell it: what it is at once, what it waits for, how it ended."""

from __future__ import annotations

import logging
import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jetscale.common.imports import quick_imports
from jetscale.common.progress import named, of_run, waiting
from jetscale.common.usage import UsageError
from jetscale.runs.done import read_identity
from jetscale.runs.layout import BEGUN, DONE, Place
from jetscale.runs.record import RunRecord
from jetscale.training.phase_settings import Phase
from jetscale.training.settings import DeviceSettings, TrainSettings

if TYPE_CHECKING:
    from jetscale.training.build import Sizes

log = logging.getLogger(__name__)


def run_told(
    settings: TrainSettings,
    path: Path,
    variant: str = "",
    budget: str | None = None,
    *,
    alone: bool = False,
) -> RunRecord:
    """Make a run (`jetscale.training.run.run`), and tell of it in the log.

    The first line needs no PyTorch, whose import takes seconds; the second adds what only the network knows.
    Of several processes for one run the first one tells.

    Parameters
    ----------
    settings : the run's
    path : its directory
    variant : what the run varied besides subset, width and seed
    budget : the choice ``budget=`` of the command line; None where it is not known
    alone : whether it belongs to no sweep; then the last line is the command to go on with
    """
    place = Place(settings.subset, settings.model.dim, settings.seed, variant)
    with named(place.title):
        level = logging.INFO if _is_first() else logging.DEBUG
        chosen = f"budget={budget}, " if budget else ""
        log.log(level, "%s", of_run(f"{chosen}in {_from_here(path)}"))
        with waiting("importing PyTorch and Lightning", partial(log.log, level)), quick_imports():
            from jetscale.training.build import check_design
            from jetscale.training.run import run
        log.log(level, "%s", of_run(_sizes(settings, check_design(settings))))
        record = run(settings, path, variant)
        log.log(level, "%s", of_run(result(record)))
    if alone:
        log.log(level, "%s", next_command(path))
    return record


def refuse_earlier_name(settings: TrainSettings, path: Path, as_typed: str) -> None:
    """Raise where a run that is not begun is there under the name that an earlier version gave its folder.

    That name had the values as they were typed, ``finetune.lr=3e-3``: the run would be made a second time.

    Parameters
    ----------
    settings : the run's
    path : its directory
    as_typed : the earlier name of its folder

    Raises
    ------
    UsageError
        One line with both folders and the command that renames.
    """
    earlier = path.with_name(as_typed)
    if earlier == path or any((path / name).exists() for name in (*BEGUN, DONE)):
        return
    if read_identity(earlier) == settings.identity():
        new, old = _from_here(path), _from_here(earlier)
        raise UsageError(
            f"{old}: this run is there already, named by an earlier version, which took values as they were "
            f"typed; it would be made again in {new}, which holds nothing but its log; to go on with the "
            f"other: rm -r {shlex.quote(str(new))} && mv {shlex.quote(str(old))} {shlex.quote(str(new))}"
        )


def _is_first() -> bool:
    """Whether torchrun and srun count this process as the first of its run; asked before torch is there."""
    return (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0"


def next_command(path: Path) -> str:
    """The command that puts a finished run to use."""
    return f"next: python -m jetscale.tagger evaluate {shlex.quote(f'run={_from_here(path)}')}"


def result(record: RunRecord) -> str:
    """Test loss and accuracy of a finished run in words; the raw weights first."""
    names = {"raw": "test loss", "ema": "averaged weights"}
    final = record.final or {}
    told: list[str] = []
    for weights, one in final.items():
        accuracy = "" if one.accuracy is None else f", {'' if told else 'accuracy '}{one.accuracy:.1%}"
        told.append(f"{names.get(weights, weights)} {one.loss:.4f}{accuracy}")
    jets = {one.jets for one in final.values() if one.jets is not None}
    count = f"; {jets.pop():,} test jets" if len(jets) == 1 else ""
    return f"done, {'; '.join(told)}{count}" if told else "done"


def _sizes(settings: TrainSettings, sizes: Sizes) -> str:
    """N, jets of each phase, and the device."""
    doing = {Phase.PRETRAIN: "pretraining", Phase.FINETUNE: "fine-tuning"}
    jets = [f"{doing[name]} {phase.steps * phase.batch_size:,} jets" for name, (phase, _) in sizes.items()]
    return f"N={sizes[Phase.FINETUNE][1]:,}, {', '.join(jets)}, {_device(settings.device)}"


def _device(settings: DeviceSettings) -> str:
    import torch

    wanted = settings.accelerator
    count = settings.devices * settings.num_nodes
    several = f"{count} x " if count > 1 else ""
    if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return several + torch.cuda.get_device_name()
    if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return several + "GPU of this Mac"
    threads = settings.threads
    return f"{several}CPU, {threads} thread{'s' * (threads > 1)}"


def _from_here(path: Path) -> Path:
    """`path` relative to the current folder, where it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
