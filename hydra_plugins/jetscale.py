"""jetscale's plugins for Hydra, found by their place: the sweeper of grids, and packs of runs on Slurm."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from jetscale.launch.composing import ReplacingLoader
from jetscale.launch.hydra_setup import print_status

if TYPE_CHECKING:  # Hydra imports this file at every start, --help included
    from jetscale.launch.jobs import Job


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, with a plan before the start and every run carried through.

    Parameters
    ----------
    max_batch_size, params : as the basic sweeper's
    dry : print the plan with measured times, start nothing
    """

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, dry: bool = False
    ) -> None:
        super().__init__(max_batch_size, params)
        self.dry = dry
        self._jobs: list[Job] = []
        self._checked: list[Job] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the configured launcher into the rounds of `jetscale.launch.rounds`."""
        self._loader = _ComposesOnce(hydra_context.config_loader.get_search_path())
        context = HydraContext(config_loader=self._loader, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=context, task_function=task_function, config=config)
        assert self.launcher is not None
        self.launcher = _Rounds(self.launcher, self)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every job, and check its settings and its folder before the first one starts."""
        from jetscale.launch.jobs import check_folders, job_of

        assert self.config is not None
        load = self._loader.compose_ahead
        with _without_table_if_refused():
            self._jobs = [job_of(load(self.config, overrides), overrides) for overrides in batch]
            self._checked += self._jobs  # a sweep in batches, too
            check_folders(self._checked, Path(self.config.hydra.sweep.dir))

    def launch(self, launcher: Launcher, first: int) -> Sequence[JobReturn]:
        """Plan the composed jobs, then carry them through; with `dry`, print the plan alone."""
        from jetscale.launch import plan_table as report
        from jetscale.launch.joblib_workers import passing_stops_on
        from jetscale.launch.rounds import Launch, carry_through
        from jetscale.launch.sweep_plan import plan_sweep

        assert self.config is not None
        with _without_table_if_refused():
            if self.dry:
                report.print_plan(report.measured_plan(self._jobs))
                return []
            plan_sweep(self._jobs).write(Path(self.config.hydra.sweep.dir))
        launch: Launch = launcher.launch
        if type(launcher).__name__ == "JoblibLauncher":
            launch = passing_stops_on(launch)
        return carry_through(self._jobs, first, launch)


@contextmanager
def _without_table_if_refused() -> Iterator[None]:
    """Leave out the closing table where nothing was started: the error is all there is to tell."""
    try:
        yield
    except Exception:
        atexit.unregister(print_status)
        raise


class _ComposesOnce(ReplacingLoader):
    """Our loader, which need not compose a job at its launch when the sweeper has done so to check it."""

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self._ahead: dict[tuple[str, ...], DictConfig] = {}

    def compose_ahead(self, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a job, kept for its launch."""
        composed = self._ahead[tuple(overrides)] = super().load_sweep_config(master, list(overrides))
        return composed

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The kept configuration, given away since a launch adds to it; a relaunch composes anew."""
        kept = self._ahead.pop(tuple(sweep_overrides), None)
        return super().load_sweep_config(master_config, sweep_overrides) if kept is None else kept

    def __getstate__(self) -> dict[str, Any]:
        """Nothing kept: a launcher's worker processes compose for themselves."""
        return self.__dict__ | {"_ahead": {}}


class _Rounds(Launcher):
    """The launcher that the sweeper calls: the configured one, as often as it takes."""

    def __init__(self, launcher: Launcher, sweeper: GridSweeper) -> None:
        self._launcher = launcher
        self._sweeper = sweeper

    def setup(self, **context: Any) -> None:
        """Nothing: the configured launcher is set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Launch the jobs that the sweeper composed from these very overrides."""
        del job_overrides
        return self._sweeper.launch(self._launcher, initial_job_idx)


class SlurmLauncher(Launcher):
    """Packs of runs as arrays of Slurm jobs; see `jetscale.launch.slurm.Queue` for the parameters."""

    def __init__(self, **params: Any) -> None:
        self._params: dict[str, Any] = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in params.items()
        }
        self._context: HydraContext | None = None
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composes jobs; the task function is not needed, packs call the run itself."""
        del task_function
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit what is not in the queue already, and wait."""
        from jetscale.launch.jobs import job_of
        from jetscale.launch.slurm import Queue

        del initial_job_idx
        assert self._context is not None
        assert self._config is not None
        load = self._context.config_loader.load_sweep_config
        jobs = [job_of(load(self._config, list(overrides)), overrides) for overrides in job_overrides]
        return Queue(Path(self._config.hydra.sweep.dir), **self._params).run(jobs)
