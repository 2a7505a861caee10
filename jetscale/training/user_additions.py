"""Callbacks and loggers that a user adds in the settings (``callbacks``, ``loggers``).

`jetscale.training.settings` has checked by then that every ``_target_`` may run.

A logger is made once for a run. Every start of the run tells it the whole curve from the beginning, so that
one that begins a new file (CSV), or hides what it was told before (TensorBoard), holds each line once, also
after a kill and where the backbone was pretrained by another run.
"""

from __future__ import annotations

import inspect
import io
import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from hydra.errors import InstantiationException
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from jetscale.common.trust import import_trusted
from jetscale.common.usage import SettingsError
from jetscale.runs.metrics import MetricsLine
from jetscale.tracking.wandb_run import values_of
from jetscale.training.settings import check_additions


def user_callbacks(named: Mapping[str, Any]) -> dict[str, L.Callback]:
    """The user's callbacks, made for one phase.

    Parameters
    ----------
    named : `TrainSettings.callbacks`

    Returns
    -------
    Callbacks by name, in the order given.

    Raises
    ------
    SettingsError
        A class cannot be called with these arguments, or what it makes is no callback or writes checkpoints.
    """
    callbacks = {}
    for name, made in _made("callbacks", named, {}).items():
        if not isinstance(made, L.Callback):
            raise SettingsError(f"callbacks.{name}: {_type(made)} is no lightning.Callback")
        if isinstance(made, Checkpoint):
            raise SettingsError(
                f"callbacks.{name}: {_type(made)} writes checkpoints, which a run does itself (set "
                "checkpoint_every); take it in a lightning.Trainer of your own (docs/training.md)"
            )
        callbacks[name] = made
    return callbacks


class UserLoggers:
    """The user's loggers of one run.

    Parameters
    ----------
    loggers : in the order of the settings; used on the first rank alone, apart from Lightning's own calls

    Attributes
    ----------
    all : the loggers, for a `lightning.Trainer`
    """

    def __init__(self, loggers: Iterable[Logger] = ()) -> None:
        self.all = list(loggers)

    def log_settings(self, settings: dict[str, Any]) -> None:
        """Give every logger the hyper-parameters: nested mappings of plain values."""
        for logger in self.all:
            with warnings.catch_warnings():
                # ours: it is told everything again
                warnings.filterwarnings(
                    "ignore", message="Experiment logs directory .* exists and is not empty"
                )
                logger.log_hyperparams(settings)

    def log(self, *lines: MetricsLine) -> None:
        """Give every logger these lines, each at its step of its phase, under the keys that W&B gets too."""
        for logger in self.all:
            for line in lines:
                logger.log_metrics(values_of(line, None), line.step)
            logger.save()


def user_loggers(named: Mapping[str, Any], directory: Path, run_name: str = "") -> UserLoggers:
    """The user's loggers, made for one run.

    Parameters
    ----------
    named : `TrainSettings.loggers`
    directory : the run directory, given as ``save_dir`` where a logger takes one and the settings name none;
        CSV and TensorBoard write into the folder there that has the logger's name in the settings
    run_name : given as ``run_name`` where a logger (MLflow's) takes one and the settings name none

    Raises
    ------
    SettingsError
        A class cannot be called with these arguments, or what it makes is no logger.
    """
    loggers = []
    for name, made in _made("loggers", named, {"save_dir": str(directory), "run_name": run_name}).items():
        if not isinstance(made, Logger):
            raise SettingsError(f"loggers.{name}: {_type(made)} is no Lightning logger")
        loggers.append(made)
    return UserLoggers(loggers)


def _folder_of(target: Any, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with which the loggers that number their folders write into one folder, called `name`.

    Parameters
    ----------
    target : the logger's class
    name : of the logger in the settings
    entry : what the settings say of it
    """
    known = isinstance(target, type) and issubclass(target, CSVLogger | TensorBoardLogger)
    if not known or {"name", "version"} & set(entry):
        return {}
    purge = (
        {"purge_step": 0} if issubclass(target, TensorBoardLogger) else {}
    )  # hides what it was told before
    return {"name": name, "version": "", **purge}


def _made(key: str, named: Mapping[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Call the ``_target_`` of every entry, with those of `defaults` that it takes and the entry lacks."""
    check_additions(key, named)  # settings made in Python have not been checked
    import_trusted()  # in a worker process no command line has been read
    made = {}
    for name, entry in named.items():
        try:
            target = hydra.utils.get_object(entry["_target_"])
            taken = inspect.signature(target).parameters
            given = {word: value for word, value in defaults.items() if word in taken}
            given |= _folder_of(target, name, entry)
            made[name] = hydra.utils.instantiate({**given, **entry}, _convert_="all")
        except (InstantiationException, ImportError, ValueError) as error:
            why = str(error.__cause__ or error).splitlines()[0]
            raise SettingsError(f"{key}.{name}: {entry['_target_']} cannot be made ({why})") from error
    return made


def require_plain_state(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """`state` of the callback `name`, if a checkpoint can hold it: tensors and plain values, no objects.

    Raises
    ------
    SettingsError
        Checkpoints are read without running code (``weights_only``), and so this state could not be read.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        torch.load(buffer, weights_only=True)
    except pickle.UnpicklingError as error:
        raise SettingsError(
            f"callbacks.{name}: its state_dict() holds more than tensors, numbers, texts, lists and "
            "mappings, which a checkpoint cannot give back; turn it into these"
        ) from error
    return state


def _type(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
