"""A launcher: it runs the jobs of a sweep one after another and writes a line for each job to a diary.

Start a sweep with it, from the folder that holds the package ``toy_lab``:

    python -m jetscale.train --trust toy_lab.launcher -m seed=0,1,2 hydra/launcher=diary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class DiaryLauncher(Launcher):
    """Runs jobs in this process.

    Parameters
    ----------
    diary : file that gets a line for each job
    """

    def __init__(self, diary: str) -> None:
        self._diary = Path(diary)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a job needs; Hydra calls this once."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a job for each entry of `job_overrides`; returns their results in the same order.

        jetscale has checked the jobs, leaves out those that are done, and calls again where this one raises.
        """
        setup_globals()
        return [self._run(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]

    def _run(self, overrides: Sequence[str], number: int) -> JobReturn:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.num = number
            config.hydra.job.id = str(number)
        result = run_job(
            task_function=self._task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self._context,
        )
        with self._diary.open("a") as diary:
            diary.write(f"{number} {result.status.name} {' '.join(overrides)}\n")
        return result


@dataclass
class DiaryConfig:
    """What ``hydra/launcher=diary`` stands for; ``hydra.launcher.diary=FILE`` changes the file."""

    _target_: str = "toy_lab.launcher.DiaryLauncher"
    diary: str = "diary.txt"


ConfigStore.instance().store(group="hydra/launcher", name="diary", node=DiaryConfig)
