"""What Hydra gets from jetscale: its command line, typed settings, names of run folders, a closing table."""

from __future__ import annotations

import atexit
import hashlib
import re
import shlex
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from jetscale.common.cli import console, home
from jetscale.common.hydra_flags import NEEDING_A_VALUE, OPTIONAL_VALUE
from jetscale.common.usage import UsageError
from jetscale.launch import composing
from jetscale.runs.search import folders_below
from jetscale.status.sweep import Sweep, Watcher
from jetscale.status.terminal import render
from jetscale.training.settings import TrainSettings, folder_name

# Overrides that do not make another run: they are in the path already, or change no number.
_NOT_IN_NAME = re.compile(
    r"(\+?experiment|\+?sweep|\+?budget|study|subset|seed|model\.dim|checkpoint_every)$"
    r"|(tracking|device|hydra)[./]|loggers([./]|$)|data\.(dir|store|workers)$|pretrain\.library$"
)
_LONGEST_NAME = 80


def hydra_arguments(argv: Sequence[str]) -> list[str]:
    """Rewrite a command line as Hydra 1.3 takes it.

    Flags go to the front: Hydra rejects them between overrides (fixed in 1.4). ``--dry`` becomes a setting of
    the sweeper, and turns a single run into a sweep of one job. ``~/`` after ``=``, which shells leave as it
    is and Hydra cannot read, becomes the home directory.

    Parameters
    ----------
    argv : words as typed, without the program and without ``--trust``

    Returns
    -------
    The words in Hydra's order.
    """
    options: list[str] = []
    overrides: list[str] = []
    words = deque(argv)
    while words:
        word = words.popleft()
        if word in ("-m", "--multirun", "--dry"):
            continue
        if not word.startswith("-"):
            overrides.append(re.sub(r"(?<=[=,\[])~/", f"{home('~/')}/", word))
            continue
        options.append(word)
        if word in NEEDING_A_VALUE and words:
            options.append(words.popleft())
        elif word in OPTIONAL_VALUE:  # given in any case: Hydra would take an override for it
            options.append(words.popleft() if words and words[0] in OPTIONAL_VALUE[word] else "all")
    if "--dry" in argv:
        return ["--multirun", *options, *overrides, "hydra.sweeper.dry=true"]
    return [*[word for word in argv if word in ("-m", "--multirun")][:1], *options, *overrides]


def run_suffix(overrides: Sequence[str]) -> str:
    """Name of the folder below ``seed=<s>`` for what a run varies besides subset, width and seed.

    However a value is typed, it has one name, the one that it has in a sweep: ``finetune.lr=3e-3`` is
    ``finetune.lr=0.003``. A name that is too long, or holds a slash, ends in a hash of the whole.
    """
    by_key = dict(_by_key(word) for word in _named(overrides))  # of two for one key the later one counts
    return _folder(by_key.values())


def suffix_as_typed(overrides: Sequence[str]) -> str:
    """As `run_suffix`, with the values as they were typed: what earlier versions called a single run."""
    return _folder(_named(overrides))


def word_of(override: Override) -> str:
    """An override as a sweep writes it, so that each value has one spelling.

    Parameters
    ----------
    override : not one that is swept
    """
    if override.value_type is None:  # ~KEY
        return override.get_key_element()
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


@lru_cache(maxsize=10_000)
def _by_key(word: str) -> tuple[str, str]:
    """Key of an override, and the override as a sweep writes it."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:  # Hydra refuses it, too
        return word, word
    return override.get_key_element(), word if override.is_sweep_override() else word_of(override)


def _named(overrides: Sequence[str]) -> list[str]:
    return [word for word in overrides if not _NOT_IN_NAME.match(word.partition("=")[0].lstrip("+~"))]


def _folder(words: Iterable[str]) -> str:
    whole = ",".join(sorted(words))
    name = re.sub(r"[^A-Za-z0-9.,=_+\-]+", "_", whole)
    if name != whole or len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return name


def register() -> None:
    """Give Hydra the typed settings, ``${run_suffix:}``, ``${folder:}`` and our loader; may be repeated."""
    composing.install()
    ConfigStore.instance().store(name="settings", node=TrainSettings)
    OmegaConf.register_new_resolver("run_suffix", run_suffix, replace=True)
    OmegaConf.register_new_resolver("folder", folder_name, replace=True)


class ClosingTable(Callback):
    """Ends a sweep with a table: which runs are done, which failed, and with which error.

    It is printed as the process exits, since Hydra leaves out ``on_multirun_end`` where a job failed.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder of the sweep."""
        atexit.register(print_status, Path(config.hydra.sweep.dir))


def print_status(sweep: Path) -> None:
    """Print the table of `jetscale.status` to stderr, and how to send runs that W&B kept offline."""
    status = None
    with suppress(UsageError):
        status = Watcher(sweep).look()
        if status.runs:
            console(160, sys.stderr).print(render(status))
    below = folders_below(sweep, unseen=lambda _: None, left_out=("latest-run", "files"))
    if any(folder.name.startswith("offline-run-") for folder, _ in below):
        found = f"find -L {shlex.quote(str(sweep))} -path '*/wandb/offline-run-*' -prune"
        sys.stderr.write(f"runs kept for W&B; send them with: {found} -exec wandb sync {{}} +\n")
    if status is not None:
        sys.stderr.write(f"next: {_next(status)}\n")


def _next(sweep: Sweep) -> str:
    """What to type after a sweep."""
    if sweep.counts["done"] == len(sweep.runs):
        return f"python -m jetscale.analysis source=local {shlex.quote(f'path={sweep.path}')}"
    return "the same command again, which goes on where this one stopped" + (
        ", and tries failed runs anew" if sweep.counts["failed"] else ""
    )
