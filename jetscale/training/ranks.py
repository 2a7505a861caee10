"""Several processes, one run: who writes, and how all come to the same decision.

They are started from outside (torchrun, srun); Lightning's own launcher would re-run a Hydra command line.
A process that dies takes the others with it: they see its connection close, or wait `TIMEOUT` for it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from jetscale.common.progress import of_run
from jetscale.common.usage import SettingsError
from jetscale.runs.directory import RunBusy
from jetscale.training.placement import Placement, placement
from jetscale.training.settings import DeviceSettings

log = logging.getLogger(__name__)

Value = TypeVar("Value")
Claim = Callable[[], AbstractContextManager[None]]

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others in one collective: many times what saving or evaluating takes."""

POLL_SECONDS = 1.0
"""Between two looks at a run directory that another process holds."""


_AGAIN = "running the same command again goes on from the last checkpoint"
_broken = False

# what torch says where a peer is gone: gloo's sockets and timeouts, NCCL's watchdog
_SIGNS_OF_LOSS = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|timed? ?out|nccl|gloo|socket", re.IGNORECASE
)


class RankLost(RuntimeError):
    """Another process of this run ended, so this one cannot go on."""


def join(device: DeviceSettings) -> Placement:
    """Form the process group that torchrun or srun asks for; nothing to do for one process.

    Raises
    ------
    SettingsError
        The settings ask for other numbers of devices and nodes than processes were started, or for an
        accelerator that this machine has not.
    RankLost
        An earlier run of this sweep lost a rank in this process.
    """
    here = placement()
    _check_accelerator(device.accelerator)
    _check_started(here, device)
    if here.world == 1:
        return here
    if _broken:
        raise RankLost("an earlier run of this sweep failed, and its processes are out of step; " + _AGAIN)
    if dist.is_initialized():
        return here
    backend = "gloo"
    if _on_gpus(device):
        backend, gpus = gpus_of(here, torch.cuda.device_count())
        if backend == "gloo":
            log.info("%s", _shared(here, len(set(gpus))))
        # a dead rank ends the others' collectives by TIMEOUT instead of leaving them to spin
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
        torch.cuda.set_device(gpus[here.local])
    dist.init_process_group(
        backend,
        init_method=f"tcp://{here.address}:{here.port}" if here.launcher == "srun" else "env://",
        rank=here.rank,
        world_size=here.world,
        timeout=TIMEOUT,
    )
    return here


def _check_accelerator(name: str) -> None:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if not {"cuda": cuda, "mps": mps, "gpu": cuda or mps}.get(name, True):
        raise SettingsError(
            f"device.accelerator={name}: torch {torch.__version__} finds none on this machine; "
            "take device.accelerator=cpu, or auto for what there is"
        )


def _check_started(here: Placement, device: DeviceSettings) -> None:
    if here.launcher == "srun" and "SLURM_PTY_PORT" in os.environ:
        raise SettingsError(
            f"this shell is one of the {here.world} tasks that srun started (SLURM_STEP_NUM_TASKS="
            f"{here.world}) and the others do nothing; start it with one task, srun --ntasks=1 --pty bash, "
            f"or start the run with srun: srun --ntasks={device.devices * device.num_nodes} python -m "
            "jetscale.train ..."
        )
    per_node = (device.devices,) * device.num_nodes
    if here.per_node == per_node and here.world == device.devices * device.num_nodes:
        return
    settings = f"device.devices={device.devices} device.num_nodes={device.num_nodes}"
    found = " + ".join(map(str, here.per_node)) if len(here.per_node) > 1 else here.world
    raise SettingsError(
        f"{settings} wants {device.devices * device.num_nodes} processes, {device.devices} on each node, but "
        f"{here.launcher} started {found}; start one process a device: torchrun --nproc-per-node "
        f"{device.devices} -m jetscale.train {settings} ..., or srun --nodes={device.num_nodes} "
        f"--ntasks-per-node={device.devices} python -m jetscale.train {settings} ..."
    )


def _on_gpus(device: DeviceSettings) -> bool:
    return torch.cuda.is_available() and device.accelerator in ("auto", "gpu", "cuda")


def gpus_of(here: Placement, visible: int) -> tuple[str, list[int]]:
    """What the processes of a run on GPUs talk over, and the GPU of each process of this node.

    Parameters
    ----------
    here : this process among those of the run
    visible : GPUs that it sees

    Returns
    -------
    ``nccl`` where every process has a GPU to itself. NCCL refuses two processes on one GPU, so with fewer
    GPUs it is ``gloo``, which copies gradients through the memory of the host.

    Raises
    ------
    SettingsError
        Processes would have to share GPUs on one of several nodes: the others could not know of it.
    """
    n_local = here.per_node[0]
    if visible >= n_local:
        return "nccl", list(range(n_local))
    if len(here.per_node) > 1:
        raise SettingsError(
            f"process {here.local} of its node sees {visible} GPUs, and {n_local} processes are on each of "
            f"{len(here.per_node)} nodes: every process must see all {n_local} GPUs of its node {_SEE_ALL}"
        )
    return "gloo", [local % visible for local in range(n_local)]


_SEE_ALL = "(under Slurm --gpus-per-node without --gpus-per-task)"


def _shared(here: Placement, gpus: int) -> str:
    return (
        f"{here.world} processes of this run share {gpus} GPU{'s' * (gpus > 1)} and talk over gloo, which is "
        f"slow; for a GPU each, every process must see all {here.world} {_SEE_ALL}"
    )


def trainer_devices(device: DeviceSettings) -> dict[str, Any]:
    """The arguments of `lightning.Trainer` that say where the processes of this node compute.

    Parameters
    ----------
    device : settings of the run
    """
    here = placement()
    if here.world > 1 and _on_gpus(device):
        backend, gpus = gpus_of(here, torch.cuda.device_count())
        if backend == "gloo":  # Lightning's `devices` takes a GPU only once
            strategy = DDPStrategy(parallel_devices=[torch.device("cuda", gpu) for gpu in gpus])
            return {"devices": 1, "strategy": strategy}
    return {"devices": device.devices, "strategy": device.strategy}


def rank() -> int:
    """Number of this process among those of the run, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the rank that writes."""
    return rank() == 0


def agreed(value: Value) -> Value:
    """The first rank's `value`, on every rank."""
    if not dist.is_initialized():
        return value
    box: list[Value] = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gathered(value: Value) -> list[Value]:
    """The `value` of every rank, in their order, on every rank; every rank must call."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank, the same answer on all; every rank must call."""
    if not dist.is_initialized():
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(int(flag), device=device)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes)


@contextmanager
def first_rank_holds(claim: Claim, wait: bool = False) -> Iterator[None]:
    """Enter ``claim()`` on the first rank; the others wait for it to be entered, or raise its error too.

    With `wait`, a directory that another process holds is tried again until it is free. Ranks do not wait
    inside a collective, whose time is bounded.
    """
    waited = False
    with ExitStack() as held:
        while (error := agreed(_entered(held, claim))) is not None:
            if not (wait and isinstance(error, RunBusy)):
                raise error
            if not waited:
                log.info("%s", of_run(f"waiting, since {str(error).partition(';')[0]}"))
            waited = True
            time.sleep(POLL_SECONDS)
        yield


def _entered(held: ExitStack, claim: Claim) -> Exception | None:
    if is_first():
        try:
            held.enter_context(claim())
        except Exception as error:
            return error
    return None


@contextmanager
def losses_named() -> Iterator[None]:
    """Turn what torch raises where another process died into `RankLost`, which says what to do.

    After any error inside, ranks are out of step: this process joins no further run (of a sweep).

    Raises
    ------
    RankLost
    """
    global _broken
    try:
        yield
    except Exception as error:
        if not dist.is_initialized():
            raise
        _broken = True
        here, world = rank(), world_size()
        dist.destroy_process_group()  # closes the connections, so that the others learn of it
        ours = type(error) is not RuntimeError and not isinstance(error, dist.DistError)
        if not ours and _SIGNS_OF_LOSS.search(str(error)):
            raise RankLost(
                f"rank {here} of {world}: another process of this run died (killed, out of memory, or "
                f"stopped by an error that its own output names); {_AGAIN}"
            ) from error
        raise
