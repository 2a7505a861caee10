"""The launcher that a sweep uses: one of Hydra's plugins, or a class of the user's own module.

Hydra instantiates launchers from the package ``hydra_plugins`` alone. A class elsewhere is used too, if it is
a `hydra.plugins.launcher.Launcher` and the command line trusts its module (``--trust my_lab``). Its
configuration is a file ``hydra/launcher/NAME.yaml`` in a folder given with ``--config-dir``, or an entry of
Hydra's `ConfigStore` that the trusted module makes; ``hydra/launcher=NAME`` chooses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig

from jetscale.common.registry import Registry
from jetscale.common.trust import FLAG, is_trusted
from jetscale.common.usage import UsageError

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]
"""`Launcher.launch`: the overrides of each job, and the number of the first job; returns one result a job."""

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SLURM = "hydra_plugins.jetscale.SlurmLauncher"
"""``_target_`` of launchers."""

WRAPPERS: Registry[Callable[[Launcher], Launch]] = Registry(
    "wrapper of a launcher", {JOBLIB: "jetscale.launch.joblib_workers:launch_with"}
)
"""By the ``_target_`` of a launcher: what makes of it the `Launch` that a sweep calls.

For launchers whose worker processes need set-up before the jobs and clean-up after them.
"""


_HERE = (BASIC, JOBLIB, "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher")


def runs_here(config: DictConfig) -> bool:
    """Whether the configured launcher is known to make every run on this machine.

    Parameters
    ----------
    config : configuration of the sweep
    """
    return config.hydra.launcher.get("_target_") in _HERE


def launch_of(context: HydraContext, task: TaskFunction, config: DictConfig) -> Launch:
    """Set up the configured launcher and return its launch.

    Parameters
    ----------
    context : Hydra's loader of configurations and its callbacks
    task : the function that runs one job, ``jetscale.train.main``
    config : configuration of the sweep; ``hydra.launcher`` names the class and its parameters

    Returns
    -------
    The launcher's `Launcher.launch`, inside its entry of `WRAPPERS` where it has one.

    Raises
    ------
    UsageError
        The class is outside of ``hydra_plugins`` and not trusted, or no launcher, or refuses its parameters.
    """
    target = str(config.hydra.launcher.get("_target_"))
    plugins = Plugins.instance()
    if plugins.is_in_toplevel_plugins_module(target):
        launcher = plugins.instantiate_launcher(hydra_context=context, task_function=task, config=config)
    elif is_trusted(target):
        launcher = _users_own(target, config.hydra.launcher)
        launcher.setup(hydra_context=context, task_function=task, config=config)
    else:
        raise UsageError(
            f"hydra.launcher._target_={target} is code outside of jetscale and Hydra's plugins; if you know "
            f"it, add {FLAG} {target.partition('.')[0]} to the command"
        )
    return WRAPPERS[target](launcher) if target in WRAPPERS.names() else launcher.launch


def _users_own(target: str, parameters: Any) -> Launcher:
    try:
        launcher = instantiate(parameters)
    except Exception as error:  # its constructor may raise anything
        reason = error.__cause__ or error
        raise UsageError(
            f"the launcher {target} cannot be made: {type(reason).__name__}: {reason}"
        ) from error
    if not isinstance(launcher, Launcher):
        raise UsageError(
            f"hydra.launcher._target_={target} is a {type(launcher).__name__}, and must be a subclass of "
            "hydra.plugins.launcher.Launcher"
        )
    return launcher
