"""Imports that take seconds, without the time that is spent on nothing of use."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_SIGNAL = "scipy.signal"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import PyTorch and Lightning inside in 2.2 s of CPU time; they take 3.7 s otherwise."""
    with _without_collection(), _without_signal():
        yield


@contextmanager
def _without_collection() -> Iterator[None]:
    """Switch Python's garbage collector off.

    An import makes hundreds of thousands of objects and no garbage, and the collector looks at all of them
    again and again: for PyTorch and Lightning 1,146 times, 1.0 of 4.1 s of CPU time, to free nothing.
    Afterwards the collector works as before, also where the import has failed.
    """
    if not gc.isenabled():  # by the caller, or inside another import
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # Together: what was imported counts as old, and nobody has looked at it, which would take 0.3 s a
            # generation. Nothing may stay frozen: at the end Triton would print all of it as leaked.
            gc.freeze()
            gc.unfreeze()
        gc.enable()


class _WhenUsed(ModuleType):
    """Stands in for a module, which is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # `inspect` asks every module for it, and that is no use
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def _without_signal() -> Iterator[None]:
    """Keep torchmetrics from importing scipy.signal, and with it scipy.stats and 560 more modules.

    Lightning imports torchmetrics, and that imports scipy.signal only to give it the name ``hamming``, for a
    package of audio metrics that expects it there: 0.5 of 2.7 s of CPU time. Whoever else uses scipy.signal,
    inside or afterwards, gets it.
    """
    if _SIGNAL in sys.modules:
        yield
        return
    stand_in = _WhenUsed(_SIGNAL)
    stand_in.__dict__["hamming"] = None  # torchmetrics looks whether the name is there
    sys.modules[_SIGNAL] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(_SIGNAL) is stand_in:
            del sys.modules[_SIGNAL]
