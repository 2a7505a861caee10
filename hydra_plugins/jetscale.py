"""jetscale's plugins for Hydra, found by their place: the sweeper of grids, and packs of runs on Slurm.

Hydra imports this file at every start, ``--help`` included, so what needs torch is imported where it is used.
"""

from __future__ import annotations

import atexit
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from jetscale.common.fields import COUNT, take
from jetscale.common.files import atomic_path
from jetscale.common.imports import quick_imports
from jetscale.common.masking import masked_tree
from jetscale.common.progress import log_above_the_bar, waiting
from jetscale.common.usage import UsageError, install_extra
from jetscale.jets.errors import JetDataError
from jetscale.launch.composing import ReplacingLoader
from jetscale.launch.hydra_setup import print_status, word_of
from jetscale.launch.launchers import launch_of, runs_here

if TYPE_CHECKING:
    from jetscale.launch.jobs import Job
    from jetscale.launch.sweep_plan import Plan

log = logging.getLogger(__name__)


class GridSweeper(Sweeper):
    """Every combination of the swept values: checked, planned, then carried through by the launcher.

    Parameters
    ----------
    max_batch_size : jobs that the launcher gets at once; None for all
    params : swept values by key, as texts (``seed: 0,1,2``); the command line adds to them and goes first
    dry : print the plan with measured times, and start nothing
    """

    def __init__(
        self, max_batch_size: int | None = None, params: dict[str, str] | None = None, dry: bool = False
    ) -> None:
        kind = Annotated[int | None, COUNT]
        try:
            max_batch_size = take("hydra.sweeper.max_batch_size", kind, max_batch_size)
        except ValueError as error:
            raise UsageError(str(error)) from error
        self._batch = max_batch_size
        self._params = dict(params or {})
        self._dry = dry

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration of the sweep and set up the launcher."""
        self._config = config
        self._loader = _ComposesOnce(hydra_context.config_loader.get_search_path())
        context = HydraContext(config_loader=self._loader, callbacks=hydra_context.callbacks)
        with _without_table_if_refused():
            self._launch = launch_of(context, task_function, config)

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Check and plan every job before the first one starts, then launch them until all have ended.

        Nothing is written before every job has passed its checks, so a refused sweep leaves no file behind.

        Parameters
        ----------
        arguments : overrides of the command line

        Returns
        -------
        One result a job, in the order of the grid; empty after a dry one. Raises what the first failed job
        raised.
        """
        folder = Path(self._config.hydra.sweep.dir)
        log_above_the_bar()
        with _without_table_if_refused():
            jobs = self._checked_jobs(arguments, folder)
            with waiting("importing PyTorch and Lightning", log.info), quick_imports():
                from jetscale.launch import plan_table
                from jetscale.launch.probe import probe_device
                from jetscale.launch.rounds import carry_through
                from jetscale.launch.sharing import sharing
                from jetscale.launch.sweep_plan import plan_sweep
            if self._dry:
                shared = sharing(self._config.hydra.launcher, probe_device(jobs[0].settings.device))
                plan_table.print_plan(plan_table.measured_plan(jobs), shared)
                return []
            plan = plan_sweep(jobs)
            with waiting("looking for the jets of every run", log.info):
                self._check_jets(plan)
            plan.write(folder)
            _write_configuration(folder / "multirun.yaml", self._config)
        size = self._batch or len(jobs)
        results: list[JobReturn] = []
        for first in range(0, len(jobs), size):
            results += carry_through(jobs[first : first + size], first, self._launch)
        for result in results:
            _ = result.return_value  # raises where the job failed
        return results

    def _check_jets(self, plan: Plan) -> None:
        """Refuse a sweep whose jets do not suffice; only warn of it where the runs are made elsewhere.

        Machines of a cluster may have jets that this one has not.
        """
        try:
            plan.check_jets()
        except JetDataError as error:
            if runs_here(self._config):
                raise
            log.warning("on this machine, which starts the runs: %s", error)

    def _checked_jobs(self, arguments: Sequence[str], folder: Path) -> list[Job]:
        """Compose every job and check its settings and its folder."""
        from jetscale.launch.jobs import check_folders, job_of

        words = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        overrides = OverridesParser.create(config_loader=self._loader).parse_overrides(words)
        grid = combinations(overrides)
        log.info("sweep of %d runs; to watch it: python -m jetscale.status %s", len(grid), folder)
        with waiting("checking the settings of every run", log.info):
            jobs = [
                job_of(self._loader.compose_ahead(self._config, combination), combination)
                for combination in grid
            ]
        check_folders(jobs, folder)
        return jobs


def combinations(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """The overrides of every job: one value of each key, the last key varying fastest.

    Parameters
    ----------
    overrides : of the whole sweep; of two for one key the later one counts

    Raises
    ------
    UsageError
        A key is swept over an interval instead of named values, or over no value.
    """
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UsageError(
                f"{override.input_line}: name the values of a sweep, A,B,C or range(first,end,step)"
            )
        if override.is_sweep_override():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            choices[key] = [word_of(override)]
        if not choices[key]:
            raise UsageError(f"{override.input_line}: a sweep without a value; range is (first,end,step)")
    return list(itertools.product(*choices.values()))


def _write_configuration(path: Path, config: DictConfig) -> None:
    """Write Hydra's ``multirun.yaml``, the configuration of the sweep, with passwords masked."""
    content = masked_tree(OmegaConf.to_container(config, resolve=False))
    with atomic_path(path) as aside:
        aside.write_text(OmegaConf.to_yaml(OmegaConf.create(content)))


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
        return super().__getstate__() | {"_ahead": {}}


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
        """Keep what composes jobs; the task function is not needed, packs call the run itself.

        Raises
        ------
        UsageError
            submitit, which submits the packs, is not installed.
        """
        del task_function
        if find_spec("submitit") is None:
            raise UsageError(
                f"sweeps on Slurm need submitit, which is not installed: {install_extra('launchers')}"
            )
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
