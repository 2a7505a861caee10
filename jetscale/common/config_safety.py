"""What a configuration file may not do: an experiment from a stranger can choose numbers, not run code.

Hydra imports and calls whatever ``_target_`` names (launcher, sweeper, callbacks) and whatever its logging
section names, before our code sees the configuration; so the files are read here first. The person at the
command line is trusted, the files are not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from jetscale.common.masking import masked
from jetscale.common.trust import is_trusted


def _conf() -> Path:
    here = Path(__file__).resolve().parents[1]
    packaged = here / "conf"  # in a wheel; in a checkout conf/ stands at the top
    return packaged if packaged.is_dir() else here.parent / "conf"


CONF = _conf()
"""Directory of the configuration files."""

TARGETS = frozenset(
    {
        "jetscale.launch.hydra_setup.ClosingTable",
        "hydra_plugins.jetscale.GridSweeper",
        "hydra_plugins.jetscale.SlurmLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    }
)
"""All that a configuration file may have Hydra call."""

LIGHTNING_TARGETS = frozenset(
    {
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.ModelSummary",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",
    }
)
"""Of Lightning's own, what may be named without ``--trust``: these only look at a run and write."""

RESOLVERS = frozenset({"run_suffix", "folder", "hydra", "now"})
"""Interpolations with a function, ``${name:...}``: ours and Hydra's own. ``oc.env`` would copy secrets."""

_HYDRA_KEYS = ("sweeper", "params")
_RESOLVER = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:|\$\{\s*[\w.]*(\$\{)")  # the second: a computed name
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)


class ConfigFileError(ValueError):
    """A configuration file, or an interpolation, that may not be used; the message says what to do."""


def check_config_files(argv: Sequence[str], shipped: Path) -> None:
    """Read every configuration file that the command line `argv` lets Hydra see, before Hydra does.

    Files of the folder `shipped` may set Hydra's section where they are part of it (``train.yaml``,
    ``hydra/``); all others only the grid of a sweep, ``hydra.sweeper.params``.

    Raises
    ------
    ConfigFileError
        A file names something to call that is not one of `TARGETS`, changes Hydra's own section, or reads the
        environment; or the command line holds a password that Hydra would write into ``multirun.yaml``.
    """
    arguments, _ = get_args_parser().parse_known_args(list(argv))
    if arguments.multirun and (leak := next((word for word in argv if masked(word) != word), None)):
        raise ConfigFileError(
            f"{masked(leak)}: a password on the command line of a sweep ends in its multirun.yaml; "
            "give it through the environment or a file of the service it is for"
        )
    typed = [word for word in arguments.overrides if not word.lstrip("+~").startswith("hydra")]
    refuse_resolvers(typed, "the command line")
    places = [shipped, *(Path(given) for given in (arguments.config_dir, arguments.config_path) if given)]
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "hydra.searchpath":
            places += [Path(found) for found in re.findall(r"(?:file://)?(/?[^\[\],\s'\"]+)", value)]
    for place in places:
        for folder, _, names in os.walk(place, followlinks=True):
            for name in names:
                if name.endswith((".yaml", ".yml")):
                    _check_file(Path(folder, name), shipped)


def _check_file(path: Path, shipped: Path) -> None:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        package = _PACKAGE.search(path.read_text())
    except Exception as error:  # OmegaConf passes on those of the YAML library
        raise ConfigFileError(f"{path} is no configuration file: {str(error).splitlines()[0]}") from error
    require_trusted_targets(content, str(path))
    refuse_resolvers(content, str(path))
    within = path.relative_to(shipped).parts if path.is_relative_to(shipped) else ()
    if within and (within[0] == "hydra" or within == ("train.yaml",)):
        return
    named = package.group(1) if package else "_group_"
    if "hydra" in named.split(".") or "hydra" in path.parts[-3:-1] or _touches_hydra(content):
        raise ConfigFileError(
            f"{path} changes Hydra's own section, which decides what is run and where it is written; only "
            "hydra.sweeper.params may stand in a file, type the rest on the command line"
        )


def require_trusted_targets(content: Any, where: str) -> None:
    """Raise where a ``_target_`` in `content`, at any depth, names code that no one has vouched for.

    Parameters
    ----------
    content : nested mappings and lists, read from a file or typed
    where : file or key, for the message

    Raises
    ------
    ConfigFileError
        A name is not one of `TARGETS` or `LIGHTNING_TARGETS`, and no ``--trust`` covers it.
    """
    allowed = TARGETS | LIGHTNING_TARGETS
    for keys, value in _leaves(content):
        if keys[-1:] == ("_target_",) and value not in allowed and not is_trusted(str(value)):
            raise ConfigFileError(
                f"{where}: {'.'.join(keys)}={value!r} would be called by Hydra and is none of "
                f"{', '.join(sorted(allowed))}; remove the line, or if you know this code, add "
                f"--trust {str(value).partition('.')[0]} to the command"
            )


def _touches_hydra(content: Any) -> bool:
    """Whether anything under ``hydra`` but the sweep's grid is set, or one of Hydra's groups is chosen."""
    if not isinstance(content, dict):
        return False
    defaults = content.get("defaults") or []
    groups = [key for entry in defaults if isinstance(entry, dict) for key in entry]
    groups += [entry for entry in defaults if isinstance(entry, str)]
    if any(re.search(r"(^|[\s/@])hydra([/.@]|$)", str(group)) for group in groups):
        return True
    inside = [keys[1:] for keys, _ in _leaves(content) if keys[0].partition(".")[0] == "hydra"]
    return any(keys[:2] != _HYDRA_KEYS for keys in inside)


def refuse_resolvers(content: Any, where: str) -> None:
    """Raise where a string of `content` is computed by a function that is not one of `RESOLVERS`.

    Raises
    ------
    ConfigFileError
    """
    for keys, value in _leaves(content):
        for text in (*keys, value):
            if not isinstance(text, str):
                continue
            for found in _RESOLVER.finditer(text):
                if found[1] not in RESOLVERS:
                    raise ConfigFileError(
                        f"{where}: {'.'.join(keys)} uses {found[0]}...}}, which could copy a secret of your "
                        "environment into config.yaml; write the value itself"
                    )


def _leaves(content: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no dict or list, with the keys above it; empty ones too."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from _leaves(value, (*above, str(key)))
    elif isinstance(content, list) and content:
        for number, value in enumerate(content):
            yield from _leaves(value, (*above, str(number)))
    elif above:
        yield above, content
