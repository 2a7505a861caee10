"""Several processes, one run: who writes, and how all ranks come to the same decision.

Ranks are started from outside (torchrun, srun); Lightning's own launcher would re-run a Hydra command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from jetscale.training.settings import DeviceSettings, SettingsError

Value = TypeVar("Value")


def join(device: DeviceSettings) -> None:
    """Form the process group that torchrun or srun asks for; nothing to do for one process.

    Raises
    ------
    SettingsError
        The settings ask for more devices than processes were started.
    """
    wanted = device.devices * device.num_nodes
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != wanted:
        raise SettingsError(
            f"device.devices x device.num_nodes = {wanted}, but {started} processes run; start one process a "
            f"device: torchrun --nproc-per-node {device.devices} -m jetscale.train "
            f"device.devices={device.devices} ..."
        )
    if wanted > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def is_first() -> bool:
    """Whether this is the rank that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def agreed(value: Value) -> Value:
    """The first rank's `value`, on every rank."""
    if not dist.is_initialized():
        return value
    box: list[Value] = [value]
    dist.broadcast_object_list(box)
    return box[0]


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank, the same answer on all; every rank must call."""
    if not dist.is_initialized():
        return flag
    votes = torch.tensor(int(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes)


@contextmanager
def first_rank_holds(context: AbstractContextManager[None]) -> Iterator[None]:
    """Enter `context` on the first rank; the others wait for it to be entered."""
    if is_first():
        with context:
            agreed(None)
            yield
    else:
        agreed(None)
        yield
