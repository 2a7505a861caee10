"""How many runs of a sweep share a GPU: processes, each with its own run, on a card as it is.

Other ways to share were not built: several graphs on streams of one process, of which docs/sweeps.md has a
measurement, or seeds of a width stacked into one launch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from jetscale.jets.stores.workers import available_cores
from jetscale.launch.launchers import BASIC, JOBLIB, SLURM

RUNS_A_CARD = 8
"""Where the user says nothing; the launcher `slurm` has the same number (`parallel`)."""
BYTES_A_RUN = 3 << 30
"""Of the card's memory: a run of width 512 took 2.25 GiB on an H200, with what CUDA takes for a process."""


def runs_on_a_card(cores: int, memory: int) -> int:
    """Runs that share a card where the user says nothing: a core and room on the card for each.

    Parameters
    ----------
    cores : that this process may use
    memory : of the card, in bytes
    """
    return max(1, min(RUNS_A_CARD, cores, memory // BYTES_A_RUN))


def joblib_runs(n_jobs: int, device: torch.device) -> int:
    """``n_jobs`` of joblib for the runs of a sweep.

    Parameters
    ----------
    n_jobs : the setting; its default, -1, is a run for each core, which is too many for a card
    device : of the runs

    Returns
    -------
    The setting, or on a GPU `runs_on_a_card` in place of -1.
    """
    if n_jobs != -1 or device.type != "cuda":
        return n_jobs
    return runs_on_a_card(available_cores(), torch.cuda.get_device_properties(device).total_memory)


def sharing(launcher: Mapping[str, Any], device: torch.device) -> str | None:
    """What a plan says of runs that share a card; None where no card is used.

    Parameters
    ----------
    launcher : its configuration, the node ``hydra.launcher``
    device : of the runs
    """
    if device.type != "cuda":
        return None
    target = str(launcher["_target_"])
    if target == BASIC:
        return "none, one run after the other; with hydra/launcher=joblib several runs share the card"
    said = "as the launcher does it"
    if target == JOBLIB:
        said = f"{joblib_runs(launcher['n_jobs'], device)} at a time on one card (hydra.launcher.n_jobs)"
    elif target == SLURM:
        said = f"{launcher['parallel']} at a time in each job (hydra.launcher.parallel)"
    return f"{said}; the time above is that of one run after the other, what sharing saves is not measured"
