"""Which of the processes started for one run this one is, as torchrun or srun tells it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment


@dataclass(frozen=True)
class Placement(ClusterEnvironment):
    """Where this process stands among those that were started for one run; Lightning is told the same.

    Attributes
    ----------
    launcher : ``torchrun``, ``srun`` or ``python``
    world : processes
    rank : number of this one
    node : number of its node
    local : its number on the node, which is its device
    per_node : processes on each node, as far as the launcher tells
    address, port : where the first process listens; empty and 0 for one process
    """

    launcher: str = "python"
    world: int = 1
    rank: int = 0
    node: int = 0
    local: int = 0
    per_node: tuple[int, ...] = (1,)
    address: str = ""
    port: int = 0

    @property
    def creates_processes_externally(self) -> bool:
        """Always: Lightning must start none."""
        return True

    @property
    def main_address(self) -> str:
        """Host of the first process."""
        return self.address

    @property
    def main_port(self) -> int:
        """Its port."""
        return self.port

    @staticmethod
    def detect() -> bool:
        """Never found by Lightning: it is handed over."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self.world

    def global_rank(self) -> int:
        """Number of this process."""
        return self.rank

    def local_rank(self) -> int:
        """Its number on its node."""
        return self.local

    def node_rank(self) -> int:
        """Number of its node."""
        return self.node

    def set_world_size(self, size: int) -> None:
        """Not Lightning's to set."""

    def set_global_rank(self, rank: int) -> None:
        """Not Lightning's to set: under srun, ranks need not be numbered node by node."""


def placement(environment: Mapping[str, str] | None = None) -> Placement:
    """Read what torchrun or srun says of this process.

    A batch script or an ``salloc`` shell has the job's ``SLURM_NTASKS`` too; only a step that srun started
    with several tasks (``SLURM_STEP_NUM_TASKS``) counts. torchrun wins: srun may have started it.
    """
    env = os.environ if environment is None else environment
    if "RANK" in env and "WORLD_SIZE" in env:
        world, here = int(env["WORLD_SIZE"]), int(env.get("LOCAL_WORLD_SIZE", env["WORLD_SIZE"]))
        return Placement(
            launcher="torchrun",
            world=world,
            rank=int(env["RANK"]),
            node=int(env.get("GROUP_RANK", "0")),
            local=int(env.get("LOCAL_RANK", env["RANK"])),
            per_node=(here,) * max(world // here, 1),
            address=env.get("MASTER_ADDR", "127.0.0.1"),
            port=int(env.get("MASTER_PORT", "29500")),
        )
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in env:
        nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "127.0.0.1")
        return Placement(
            launcher="srun",
            world=int(env["SLURM_STEP_NUM_TASKS"]),
            rank=int(env["SLURM_PROCID"]),
            node=int(env.get("SLURM_NODEID", "0")),
            local=int(env["SLURM_LOCALID"]),
            per_node=_tasks_per_node(env.get("SLURM_STEP_TASKS_PER_NODE", env["SLURM_STEP_NUM_TASKS"])),
            address=env.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
            port=int(env.get("MASTER_PORT") or _port_of_step(env)),
        )
    return Placement()


def _tasks_per_node(text: str) -> tuple[int, ...]:
    """Slurm's ``4(x2),1`` as (4, 4, 1)."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return tuple(int(tasks) for tasks, times in found for _ in range(int(times or 1)))


def _port_of_step(env: Mapping[str, str]) -> int:
    # Lightning takes 15000 + the job's last four digits: two steps of one job would meet at one port
    job, step = int(env.get("SLURM_JOB_ID", "0")), int(env.get("SLURM_STEP_ID", "0"))
    return 15_000 + (job + 1_009 * step) % 15_000
