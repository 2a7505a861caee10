"""Hydra's loader of configurations, with mappings that replace each other.

Hydra merges: ``+experiment=bsm_all 'pretrain.composition={QCD: 1}'`` would be QCD 1, Res2P 20, Res34P 65.
A mapping whose field is marked `jetscale.common.fields.Replaced` takes its whole value from the last file or
override that gives it one. An override of one entry, ``pretrain.composition.QCD=2``, changes or adds that
entry alone.

This is the only module that imports from ``hydra._internal``: Hydra has no public way to change how it
composes, and no setting for its loader. `tests/launch/test_hydra_flags.py` holds the list of these imports.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import hydra._internal.hydra as hydra_main
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.override_parser.types import Override, ParsedElementType
from hydra.grammar.gen.OverrideParser import OverrideParser
from omegaconf import DictConfig, OmegaConf

from jetscale.common.fields import problems, replaced_keys
from jetscale.common.trust import trust, trusted
from jetscale.common.usage import SettingsError, UsageError
from jetscale.training.settings import TrainSettings

KEYS = tuple(replaced_keys(TrainSettings))
_TOP_KEYS = frozenset(field.name for field in fields(TrainSettings))
_ABSENT = object()


class ReplacingLoader(ConfigLoaderImpl):
    """Composes as Hydra does, each file checked, and gives each of `KEYS` the mapping given last."""

    def _load_single_config(self, default: ResultDefault, repo: Any) -> Any:
        result = super()._load_single_config(default, repo)
        _check_file(str(default.config_path), default.package, result.config)
        self._files.append(result.config)
        return result

    def _parse_overrides_and_create_caching_repo(self, *arguments: Any, **named: Any) -> Any:
        parsed, repository = super()._parse_overrides_and_create_caching_repo(*arguments, **named)
        self._overrides = parsed
        return parsed, repository

    def _compose_config_from_defaults_list(self, *arguments: Any, **named: Any) -> DictConfig:
        self._files: list[Any] = []
        config = super()._compose_config_from_defaults_list(*arguments, **named)
        for key in KEYS:
            given = (OmegaConf.select(file, key, default=_ABSENT) for file in reversed(self._files))
            last = next((value for value in given if value is not _ABSENT), None)
            if OmegaConf.is_dict(last):
                _put(config, key, copy.deepcopy(last))
        self._of_files = {key: copy.deepcopy(OmegaConf.select(config, key)) for key in KEYS}
        self._files = []
        return config

    def _load_configuration_impl(self, *arguments: Any, **named: Any) -> DictConfig:
        config = super()._load_configuration_impl(*arguments, **named)
        for key in KEYS:
            _replay(config, key, self._of_files[key], self._overrides)
        self._of_files, self._overrides = {}, []
        return config

    def __getstate__(self) -> dict[str, Any]:
        """The loader as a launcher sends it to its worker processes: with the names of trusted modules."""
        return self.__dict__ | {"trusted": trusted()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a worker, which composes a job before it runs it: import the trusted modules first."""
        trust(state.pop("trusted"))
        self.__dict__ |= state


class UniqueKeys(HydraOverrideVisitor):
    """Reads overrides as Hydra does, but refuses ``{QCD: 1, QCD: 2}``, of which Hydra would take the last."""

    def visitDictContainer(  # noqa: N802  # as the grammar's generator names it
        self, ctx: OverrideParser.DictContainerContext
    ) -> dict[str, ParsedElementType]:
        """A mapping, each of whose keys is there once.

        Raises
        ------
        UsageError
        """
        found = super().visitDictContainer(ctx)
        entries = ctx.getChildCount() // 2 if ctx.getChildCount() > 2 else 0  # braces and commas between
        if len(found) < entries:
            raise UsageError(f"{ctx.getText()}: one key is there twice; give each key once")
        return found


def install() -> None:
    """Have Hydra take `ReplacingLoader` and `UniqueKeys`, for which it has no setting."""
    overrides_parser.HydraOverrideVisitor = UniqueKeys  # type: ignore[attr-defined]  # Hydra imports it, exports it not
    hydra_main.ConfigLoaderImpl = ReplacingLoader  # type: ignore[attr-defined]  # Hydra imports it, exports it not


def _check_file(name: str, package: str | None, config: Any) -> None:
    """Check the keys and values of one file, which Hydra would merge into the typed settings.

    Parameters
    ----------
    name : of the file, without its ending
    package : where Hydra puts its keys: by default the dotted name of its group
    config : its content, there

    Raises
    ------
    SettingsError
        One line with the file, the key and what is needed.
    """
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    ours = {key: value for key, value in content.items() if key not in ("hydra", "defaults")}
    if problem := next(problems(TrainSettings, ours), None):
        group = name.partition("/")[0]
        if package is not None and package.partition(".")[0] == group and group not in _TOP_KEYS:
            raise SettingsError(
                f"{name}.yaml: its first line must be `# @package _global_`; without it Hydra takes its keys "
                f"for keys of {group!r}, which no run has"
            )
        raise SettingsError(f"{name}.yaml: {problem}")


def _replay(config: DictConfig, key: str, of_files: Any, overrides: list[Override]) -> None:
    """Apply again what `overrides` say of `key`, to its value in the files; each mapping replaces it."""
    told = [(one, _told(one, key)) for one in overrides if not one.is_sweep_override()]
    if not any(isinstance(value, dict) for _, value in told):
        return  # Hydra has merged nothing
    _put(config, key, of_files)
    for override, value in told:
        if override.key_or_group.startswith(f"{key}."):
            if isinstance(value, dict):
                OmegaConf.update(config, override.key_or_group, None, merge=False, force_add=True)
            ConfigLoaderImpl._apply_overrides_to_config([override], config)
        elif value is not _ABSENT:
            _put(config, key, value)


def _put(config: DictConfig, key: str, value: Any) -> None:
    """Set a mapping, open to new entries though the configuration around it is closed."""
    OmegaConf.update(config, key, value, merge=False)
    if OmegaConf.is_dict(node := OmegaConf.select(config, key)):
        OmegaConf.set_struct(node, False)


def _told(override: Override, key: str) -> Any:
    """The value that `override` gives to `key`, or to something inside it."""
    value: Any = override.value()
    if override.key_or_group == key or override.key_or_group.startswith(f"{key}."):
        return value
    above = f"{override.key_or_group}."
    if not key.startswith(above):
        return _ABSENT
    for part in key.removeprefix(above).split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value
