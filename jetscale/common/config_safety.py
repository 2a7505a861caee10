"""What a configuration file may not do: an experiment from a stranger can choose numbers, not run code.

Hydra imports and calls whatever ``_target_`` names (launcher, sweeper, callbacks) and whatever its logging
section names, before our code sees the configuration. So the files are read here first, against the rules
below. The person at the command line is trusted: what ``--trust MODULE`` names may be called
(`jetscale.common.trust`). The files are not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from jetscale.common.hydra_flags import flags_parser
from jetscale.common.masking import masked
from jetscale.common.trust import is_trusted


def _conf() -> Path:
    here = Path(__file__).resolve().parents[1]
    packaged = here / "conf"  # in a wheel; in a checkout conf/ stands at the top
    return packaged if packaged.is_dir() else here.parent / "conf"


CONF = _conf()
"""Directory of the configuration files."""

# The rules. Whatever they do not name is refused.

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
"""What any file may name as ``_target_``, for Hydra to call; besides what the command line trusts."""

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

SHIPPED_HYDRA_FILES = re.compile(r"train\.yaml|hydra/.+")
"""Files of jetscale's own folder that may set Hydra's section, by their path in it."""

LAUNCHER_FILES = re.compile(r"hydra/launcher/[^/]+")
"""A user's files that may set a part of Hydra's section, ``hydra.launcher``, if their target is trusted."""

OPEN_HYDRA_KEYS = (("sweeper", "params"),)
"""What any file may set under ``hydra``: the grid of a sweep."""

_RESOLVER = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:|\$\{\s*[\w.]*(\$\{)")  # the second: a computed name
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # twelve times faster where libyaml is there
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)


class ConfigFileError(ValueError):
    """A configuration file, or an interpolation, that may not be used; the message says what to do."""


def check_config_files(argv: Sequence[str], shipped: Path) -> None:
    """Read every configuration file that the command line lets Hydra see, before Hydra does.

    Parameters
    ----------
    argv : words of the command line, without the program and without ``--trust``
    shipped : folder of jetscale's own configuration files

    Raises
    ------
    ConfigFileError
        A file breaks one of the rules above: it names something to call, changes Hydra's own section, or
        reads the environment. Or the command line of a sweep holds a password, which would be written down.
    """
    arguments, _ = flags_parser().parse_known_args(list(argv))
    if arguments.multirun and (leak := next((word for word in argv if masked(word) != word), None)):
        raise ConfigFileError(
            f"{masked(leak)}: a password on the command line of a sweep is written into its logs and its "
            "multirun.yaml; give it through the environment or a file of the service it is for"
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
                    _check_file(Path(folder, name), place, shipped)


def _check_file(path: Path, place: Path, shipped: Path) -> None:
    """Check one file of the search path.

    Parameters
    ----------
    place : folder of the search path that `path` was found in
    """
    try:
        text = path.read_text()
        twice = key_given_twice(text)
        content = None if twice else OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        package = _PACKAGE.search(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigFileError(f"{path} is no configuration file: {line}{error.problem}") from error
    except Exception as error:  # not text, or what OmegaConf passes on
        raise ConfigFileError(f"{path} is no configuration file: {str(error).splitlines()[0]}") from error
    if twice is not None:
        raise ConfigFileError(
            f"{path}: line {twice[1]}: the key {twice[0]} is there twice; give each key once"
        )
    require_trusted_targets(content, str(path))
    refuse_resolvers(content, str(path))
    if path.is_relative_to(shipped) and SHIPPED_HYDRA_FILES.fullmatch(path.relative_to(shipped).as_posix()):
        return
    named = package.group(1) if package else "_group_"
    if LAUNCHER_FILES.fullmatch(path.relative_to(place).as_posix()):
        _check_launcher(path, content, named)
    elif "hydra" in named.split(".") or "hydra" in path.parts[-3:-1] or _touches_hydra(content):
        raise ConfigFileError(
            f"{path} changes Hydra's own section, which decides what is run and where it is written; only "
            "hydra.sweeper.params may stand in a file, type the rest on the command line"
        )


def key_given_twice(text: str) -> tuple[Any, int] | None:
    """The first key that a mapping of a YAML file has twice, ``8`` and ``8.0`` too, and its line; else None.

    OmegaConf refuses such keys where they are texts, and takes the last where they are numbers: the widths of
    a table of learning rates.
    """
    loader = _LOADER(text)
    try:
        nodes = [loader.get_single_node()]
        while nodes:
            node = nodes.pop()
            if isinstance(node, yaml.SequenceNode):
                nodes += node.value
            if not isinstance(node, yaml.MappingNode):
                continue
            seen = set()
            for key, value in node.value:
                name = loader.construct_object(key) if isinstance(key, yaml.ScalarNode) else id(key)
                if name in seen:
                    return name, key.start_mark.line + 1
                seen.add(name)
                nodes.append(value)
    finally:
        loader.dispose()
    return None


def _check_launcher(path: Path, content: Any, package: str) -> None:
    """Demand that a user's launcher file fills ``hydra.launcher`` alone, with a class that is trusted."""
    target = content.get("_target_") if isinstance(content, dict) else None
    if target is None or not is_trusted(str(target)):
        hint = f"--trust {str(target).rpartition('.')[0]}" if target else "--trust and the name of its module"
        raise ConfigFileError(
            f"{path} describes a launcher, _target_={target}, and a launcher runs code; it needs the "
            f"_target_ of a class that you trust: if you know this file, add {hint} to the command"
        )
    defaults = content.get("defaults") or []
    siblings = all(isinstance(entry, str) and re.fullmatch(r"[\w-]+", entry) for entry in defaults)
    if package != "_group_" or "hydra" in content or not siblings:
        raise ConfigFileError(
            f"{path}: a launcher's file fills hydra.launcher alone; remove its @package line, its key hydra "
            "and every entry of its defaults that is not the name of another launcher"
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
    for keys, value in leaves(content):
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
    inside = [keys[1:] for keys, _ in leaves(content) if keys[0].partition(".")[0] == "hydra"]
    return any(keys[:2] not in OPEN_HYDRA_KEYS for keys in inside)


def refuse_resolvers(content: Any, where: str) -> None:
    """Raise where a string of `content` is computed by a function that is not one of `RESOLVERS`.

    Raises
    ------
    ConfigFileError
    """
    for keys, value in leaves(content):
        for text in (*keys, value):
            if not isinstance(text, str):
                continue
            for found in _RESOLVER.finditer(text):
                if found[1] not in RESOLVERS:
                    raise ConfigFileError(
                        f"{where}: {'.'.join(keys)} uses {found[0]}...}}, which could copy a secret of your "
                        "environment into config.yaml; write the value itself"
                    )


def leaves(content: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no dict or list, with the keys above it; empty ones too."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, (*above, str(key)))
    elif isinstance(content, list) and content:
        for number, value in enumerate(content):
            yield from leaves(value, (*above, str(number)))
    elif above:
        yield above, content
