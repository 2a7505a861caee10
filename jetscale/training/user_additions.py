"""Callbacks and loggers that a user adds in the settings (``callbacks``, ``loggers``).

`jetscale.training.settings` has checked by then that every ``_target_`` may run.
"""

from __future__ import annotations

import inspect
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from hydra.errors import InstantiationException
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from jetscale.common.trust import import_trusted
from jetscale.training.settings import SettingsError, check_additions


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


def user_loggers(named: Mapping[str, Any], directory: Path) -> list[Logger]:
    """The user's loggers, made for one phase.

    Parameters
    ----------
    named : `TrainSettings.loggers`
    directory : given as ``save_dir`` where a logger takes one and the settings name none

    Raises
    ------
    SettingsError
        A class cannot be called with these arguments, or what it makes is no logger.
    """
    loggers = []
    for name, made in _made("loggers", named, {"save_dir": str(directory)}).items():
        if not isinstance(made, Logger):
            raise SettingsError(f"loggers.{name}: {_type(made)} is no Lightning logger")
        loggers.append(made)
    return loggers


def _made(key: str, named: Mapping[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Call the ``_target_`` of every entry, with those of `defaults` that it takes and the entry lacks."""
    check_additions(key, named)  # settings made in Python have not been checked
    import_trusted()  # in a worker process no command line has been read
    made = {}
    for name, entry in named.items():
        try:
            taken = inspect.signature(hydra.utils.get_object(entry["_target_"])).parameters
            given = {word: value for word, value in defaults.items() if word in taken}
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
