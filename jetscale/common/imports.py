"""Imports that take seconds, without the time that is spent on nothing of use."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import PyTorch and Lightning inside in 2.2 s of CPU time; they take 3.7 s otherwise.

    Lightning imports torchmetrics, which imports two large packages for a few names that a run never uses.
    Both are left out here, and imported as soon as anybody uses something of them, inside or afterwards:

    - scipy.signal, with scipy.stats and 560 more modules: 0.5 of 2.7 s of CPU time, for the name ``hamming``,
      which a package of audio metrics expects there;
    - transformers, where it is installed: 8.6 of 20 s until a run's first step on a machine with a GPU, for
      the models and tokenizers of metrics of texts.
    """
    models = {name: _NameWhenUsed("transformers", name) for name in ("AutoModel", "AutoTokenizer")}
    with (
        _without_collection(),
        # torchmetrics looks whether the name is there
        _standing_in("scipy.signal", {"hamming": None}),
        _standing_in("transformers", models),
    ):
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
        return getattr(self.real(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        real = sys.modules.get(self.__name__, self)
        if real is not self:  # the import system gives a module those that are imported below it
            setattr(real, name, value)

    def real(self) -> ModuleType:
        """The module itself, imported."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return import_module(self.__name__)


class _Below(Loader):
    """Finds modules below a `_WhenUsed`, which is imported first: it may import them itself.

    Parameters
    ----------
    above : what stands in
    """

    def __init__(self, above: _WhenUsed) -> None:
        self._above = above

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """What the import system asks of every finder."""
        if not name.startswith(f"{self._above.__name__}."):
            return None
        self._above.real()
        if name not in sys.modules:
            return None
        return ModuleSpec(name, self, loader_state=sys.modules[name].__spec__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module, which has been imported."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do but to keep where the module comes from."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


class _NameWhenUsed:
    """Stands in for a name of a module, which is imported when something of the name is used.

    Parameters
    ----------
    module, name : what it stands in for
    """

    def __init__(self, module: str, name: str) -> None:
        self._real = module, name

    def __getattr__(self, attribute: str) -> Any:
        module, name = self._real
        return getattr(getattr(import_module(module), name), attribute)


@contextmanager
def _standing_in(name: str, names: Mapping[str, object]) -> Iterator[None]:
    """Import inside without a module that is not imported yet, if it is installed.

    Parameters
    ----------
    name : of the module
    names : what takes the place of its names; another name of it imports it
    """
    package, _, below_it = name.partition(".")
    spec = None if name in sys.modules else find_spec(package)
    if spec is None:
        yield
        return
    stand_in = _WhenUsed(name)
    if not below_it:
        stand_in.__spec__ = spec  # whoever asks whether the package is installed looks here
        # ``from package import name`` asks for it, and if it were missing would import the package
        stand_in.__path__ = list(spec.submodule_search_locations or ())
    stand_in.__dict__.update(names)
    below = _Below(stand_in)
    sys.modules[name] = stand_in
    sys.meta_path.insert(0, below)
    try:
        yield
    finally:
        sys.meta_path.remove(below)
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
