"""``python -m jetscale.train``: one run, or with ``-m`` a sweep of them.

``python -m jetscale.train +experiment=bsm_all model.dim=256 -m seed=0,1,2,3,4``; ``--dry``: its plan.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from jetscale.config_files import CONF, ConfigFileError, check_config_files
from jetscale.sweeps import hydra_arguments, register, run_suffix
from jetscale.tracking.run_directory import leave_traceback
from jetscale.train_help import train_help

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(config: DictConfig) -> float:
    """Run one job; returns the final test loss."""
    # imported here: `--help` and the parsing of a sweep need no torch
    from jetscale.jets.errors import JetDataError
    from jetscale.launch.joblib_workers import obeying_the_driver
    from jetscale.training.run import run
    from jetscale.training.settings import SettingsError, from_config

    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        try:
            settings = from_config(config)
        except SettingsError as error:
            leave_traceback(directory, error)
            raise
        with obeying_the_driver():
            done = run(settings, directory, run_suffix(HydraConfig.get().overrides.task))
    except (SettingsError, JetDataError) as error:
        if HydraConfig.get().mode != RunMode.RUN:
            raise  # the sweep goes on with its other runs
        sys.exit(f"jetscale.train: {error}")
    return float(done["final"]["raw"]["loss"])


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(train_help(CONF))
        sys.exit(0)
    sys.argv[1:] = hydra_arguments(sys.argv[1:])
    try:
        check_config_files(sys.argv[1:], CONF)
    except ConfigFileError as error:
        sys.exit(f"jetscale.train: {error}")
    try:
        main()
    except KeyboardInterrupt:  # where nothing trains: while jets are packed, before the first run
        sys.stderr.write("jetscale.train: interrupted; the same command goes on\n")
        sys.exit(130)
