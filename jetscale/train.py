"""``python -m jetscale.train``: one run, or with ``-m`` a sweep of them.

``python -m jetscale.train +experiment=bsm_all model.dim=256 -m seed=0,1,2,3,4``; ``--dry``: its plan.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from jetscale.common.cli import explains_itself, told
from jetscale.common.config_safety import CONF, check_config_files
from jetscale.common.progress import log_above_the_bar
from jetscale.common.trust import import_trusted, take_trust
from jetscale.common.usage import SettingsError
from jetscale.launch.command_line import check_command_line, explanation
from jetscale.launch.help import train_help
from jetscale.launch.hydra_setup import hydra_arguments, register, run_suffix, suffix_as_typed
from jetscale.launch.joblib_workers import obeying_the_driver
from jetscale.launch.single_run import refuse_earlier_name, run_told
from jetscale.runs.directory import leave_traceback
from jetscale.runs.record import RunRecord
from jetscale.training.settings import from_config

_FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's variable: with 1, every error comes with its traceback."""

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(config: DictConfig) -> float:
    """Run one job; returns the final test loss."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        done = _run_one(config, directory)
    except Exception as error:
        # of a single run; the sweep goes on with its other runs, and Hydra collects the errors
        if HydraConfig.get().mode == RunMode.RUN and explains_itself(error) and not _wants_tracebacks:
            sys.exit(f"jetscale.train: {told(error)}")
        raise
    return done.final_losses["raw"]


def _run_one(config: DictConfig, directory: Path) -> RunRecord:
    import_trusted()  # in a worker of joblib or Slurm no command line has been read
    try:
        settings = from_config(config)
    except SettingsError as error:
        leave_traceback(directory, error)
        raise
    log_above_the_bar()
    hydra_config = HydraConfig.get()
    typed, budget = hydra_config.overrides.task, hydra_config.runtime.choices.get("budget")
    variant = run_suffix(typed)
    if directory.name == variant:
        refuse_earlier_name(settings, directory, suffix_as_typed(typed))
    with obeying_the_driver():
        return run_told(settings, directory, variant, budget, alone=hydra_config.mode == RunMode.RUN)


def _run() -> None:
    try:
        words = take_trust(sys.argv[1:])
        if {"-h", "--help"} & set(words):
            sys.stdout.write(train_help(words, CONF))
            return
        sys.argv[1:] = hydra_arguments(words)
        check_config_files(sys.argv[1:], CONF)
        check_command_line(sys.argv[1:], CONF)
        os.environ[_FULL_ERROR] = "1"  # have Hydra raise its errors, instead of printing them its way
        main()
    except Exception as error:
        if _wants_tracebacks or (line := explanation(error)) is None:
            raise
        sys.exit(f"jetscale.train: {line}")
    except KeyboardInterrupt:  # where nothing trains: while jets are packed, before the first run
        sys.stderr.write("jetscale.train: interrupted; the same command goes on\n")
        sys.exit(130)


_wants_tracebacks = os.environ.get(_FULL_ERROR) == "1"

if __name__ == "__main__":
    _run()
