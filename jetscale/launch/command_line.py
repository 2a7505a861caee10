"""The command line of ``python -m jetscale.train``, checked before Hydra sees it: each mistake is one line.

Hydra would refuse most of them too, later and in its own words, which name neither the nearest key nor the
way to write it.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from jetscale.common.cli import explains_itself, told
from jetscale.common.fields import keys_of, limit_of, nearest, plain_type, problems, replaced_keys
from jetscale.common.hydra_flags import flags_parser
from jetscale.common.usage import UsageError, install_extra
from jetscale.training.settings import TrainSettings

KEYS = keys_of(TrainSettings)
FLAGS = (
    "--multirun",
    "-m",
    "--dry",
    "--help",
    "--config-dir",
    "--cfg",
    "--resolve",
    "--hydra-help",
    "--info",
)
_OPEN = tuple(f"{key}." for key in replaced_keys(TrainSettings))
_GROUPS = {"experiment": "+", "sweep": "+", "budget": ""}
"""Choices of one file, and the sign before them: only a budget has a default to replace."""
_ELSEWHERE = {
    "wandb.mode": "tracking.wandb",
    "wandb": "tracking.wandb",
    "max_steps": "finetune.steps",
    "max_epochs": "finetune.steps",
    "gradient_clip_val": "finetune.clip",
    "learning_rate": "finetune.lr",
    "warmup_steps": "finetune.warmup",
    "num_workers": "data.workers",
    "batch_size": "finetune.batch_size",
    "width": "model.dim",
    "n_layers": "model.depth",
    "num_layers": "model.depth",
    "log_every_n_steps": "tracking.log_every",
    "val_check_interval": "eval.every",
    "data_dir": "data.dir",
    "max_time": "finetune.max_flops",
}
"""What Lightning, W&B and others call some of our keys, or their last part."""


def check_command_line(argv: Sequence[str], shipped: Path) -> None:
    """Check every word of `argv`, as `hydra_arguments` orders it, against flags, choices, keys and limits.

    Parameters
    ----------
    shipped : folder of the configuration files

    Raises
    ------
    UsageError
        One line: the word, what is wrong, and what was probably meant.
    """
    arguments, rest = flags_parser().parse_known_args(list(argv))
    for word in rest:
        raise UsageError(_unknown_flag(word))
    _check_flags(arguments)
    folders = [shipped, *(Path(given) for given in (arguments.config_dir, arguments.config_path) if given)]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--config-dir {folder}: no such folder")
    if arguments.config_dir:
        _check_shadowed(shipped, Path(arguments.config_dir))
    overrides = [_parsed(word, folders) for word in arguments.overrides]
    sweep = arguments.multirun or any(one.key_or_group == "hydra.mode" for one in overrides)
    shown = arguments.cfg or arguments.info
    searched = any(one.key_or_group == "hydra.searchpath" for one in overrides)
    for override in overrides:
        if override.is_sweep_override() and not sweep:
            raise UsageError(
                f"{override.input_line}: several values are a sweep; add -m, or quote a text that has a comma"
            )
        if override.key_or_group in _GROUPS:
            _check_choice(override, [] if searched else folders)
            if override.key_or_group == "sweep" and not (sweep or shown):
                raise UsageError(
                    f"{override.input_line}: is a sweep of several runs; add -m, or --dry for its plan alone"
                )
        elif override.is_hydra_override():
            _check_hydra(override)
        else:
            _check_key(override)


def _check_shadowed(shipped: Path, own: Path) -> None:
    """Refuse a file of the user that has the name of a shipped one: Hydra would take that one, silently.

    Raises
    ------
    UsageError
    """
    for theirs in shipped.rglob("*.yaml"):
        mine = own / theirs.relative_to(shipped)
        if mine.is_file() and not mine.samefile(theirs):
            raise UsageError(
                f"{mine}: would not be read, since jetscale's {theirs} has the same name; rename yours"
            )


def _check_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags that Hydra refuses in a traceback.

    Raises
    ------
    UsageError
    """
    modes = {
        "-m": arguments.multirun, "--cfg": arguments.cfg, "--info": arguments.info, "--run": arguments.run,
        "--shell-completion": arguments.shell_completion,
    }  # fmt: skip
    given = [name for name, value in modes.items() if value]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(given)} cannot go together; --cfg job shows the settings of one run, and "
            "-m ... --dry the plan of a sweep"
        )
    if arguments.resolve and not arguments.cfg:
        raise UsageError("--resolve goes with --cfg alone: --cfg job --resolve")
    if arguments.experimental_rerun:
        raise UsageError("--experimental-rerun is not needed: the same command again goes on with a run")


def _unknown_flag(word: str) -> str:
    key, _, value = word.lstrip("-").partition("=")
    if key in KEYS:
        return f"unknown flag {word!r}; did you mean {key}={value or 'VALUE'}?"
    return f"unknown flag {word!r}; {nearest(word.partition('=')[0], list(FLAGS), 'flags')}"


def _parsed(word: str, folders: Sequence[Path]) -> Override:
    if "=" not in word and not word.startswith("~"):
        for group, sign in _GROUPS.items():
            if word in choices(group, folders):
                raise UsageError(f"{word!r} is not key=value; did you mean {sign}{group}={word}?")
        raise UsageError(f"{word!r} is not key=value; see --help")
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        key, _, value = word.partition("=")
        plain = f"{key}={_QUOTED_KEY.sub(_without_quotes, value)}"
        if plain != word and _is_readable(plain):
            raise UsageError(
                f"{word}: cannot be read; keys of a mapping stand without quotes: '{plain}'"
            ) from error
        quoted = value.replace("'", "\\'")
        why = str(error).splitlines()[0].removeprefix(f"Error parsing override '{word}'").strip(" :")
        raise UsageError(
            f"{word}: cannot be read{f' ({why})' if why else ''}; a text with special characters needs two "
            f"pairs of quotes: \"{key}='{quoted}'\""
        ) from error


_QUOTED_KEY = re.compile(r"""(["'])([^"']+)\1(?=\s*:)""")
"""A key as JSON has it; Hydra's grammar has none with quotes."""


def _without_quotes(key: re.Match[str]) -> str:
    return key[2]


def _is_readable(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def choices(group: str, folders: Sequence[Path]) -> list[str]:
    """Names of the files that a group offers; Hydra reads those that end in ``.yaml``.

    Parameters
    ----------
    group : ``experiment``, ``hydra/launcher``, ...
    folders : of configuration files
    """
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _check_choice(override: Override, folders: Sequence[Path]) -> None:
    """Demand a file of the group for every value, and the group's sign before it."""
    group, sign = override.key_or_group, _GROUPS[override.key_or_group]
    typed = override.input_line or ""
    if override.is_delete():
        return
    if sign and not (override.is_add() or override.is_force_add()):
        raise UsageError(f"{typed}: did you mean +{typed}?")
    if not sign and (override.is_add() or override.is_force_add()):
        raise UsageError(f"{typed}: did you mean {typed.lstrip('+')}?")
    known = choices(group, folders)
    pattern: Any = override.value()
    chosen = pattern.filter(known) if isinstance(pattern, Glob) else _values(override)
    if folders and not chosen:
        raise UsageError(f"{typed}: no choice matches; choices: {', '.join(known)}")
    values = [name for value in chosen for name in (value if isinstance(value, list) else [value])]
    if group == "sweep" and len(values) > 1:
        raise UsageError(f"{typed}: a sweep is one file; run the command once for each")
    for value in values:
        name = str(value).removesuffix(".yaml")
        if folders and name not in known:
            _refuse_other_ending(typed, [folder / group / name for folder in folders])
            raise UsageError(_no_choice(f"{sign}{group}", str(value), known))


def _refuse_other_ending(typed: str, files: Sequence[Path]) -> None:
    """Raise where one of the `files`, given without an ending, is there as ``.yml``, which Hydra never reads.

    Raises
    ------
    UsageError
    """
    for file in files:
        name = file.name.removesuffix(".yml")
        if (other := file.with_name(f"{name}.yml")).is_file():
            raise UsageError(f"{typed}: {other} is not read, since its name must end in .yaml; rename it")


def _no_choice(group: str, name: str, known: list[str]) -> str:
    return f"{group}={name}: no such choice; {nearest(name, known, 'choices')}"


def _check_hydra(override: Override) -> None:
    """``hydra.launcher=joblib`` would make the launcher a text."""
    parts = override.key_or_group.split(".")
    named = _values(override)
    if len(parts) == 2 and parts[1] in ("launcher", "sweeper") and not isinstance(named[0], Mapping):
        raise UsageError(
            f"{override.input_line}: did you mean hydra/{parts[1]}={','.join(str(name) for name in named)}?"
        )


def _check_key(override: Override) -> None:
    """Demand that the key exists and that each value is within its limits."""
    key, typed = override.key_or_group, override.input_line or ""
    if key.startswith(_OPEN):
        return
    if not (key in KEYS or any(known.startswith(f"{key}.") for known in KEYS)):
        raise UsageError(_unknown_key(key, typed))
    if override.package is not None:
        raise UsageError(f"{typed}: @ is for files that are chosen; {key} is a key, {key}=VALUE")
    if override.is_delete():
        raise UsageError(f"{typed}: a key cannot be taken away; give it a value, or null where it may be")
    for value in _values(override):
        _check_text(override, value)
        for problem in _problems(key, value):
            single = key in KEYS and not override.is_sweep_override()  # then as it was typed: 1e1, not 10.0
            said = re.split(r"(?=: (?:must|cannot) be )", problem)[-1]
            raise UsageError(f"{typed}{said}" if single else problem)


def _check_text(override: Override, value: Any) -> None:
    """Refuse a name that Hydra takes for a number or a truth value and writes otherwise: 2026_11 as 202611.

    Raises
    ------
    UsageError
    """
    key, typed = override.key_or_group, (override.input_line or "").partition("=")[2]
    if key not in KEYS or plain_type(KEYS[key]) is not str or not isinstance(value, (bool, int, float)):
        return
    if str(value) not in re.split(r"[\s,()]+", typed):
        raise UsageError(
            f"{override.input_line}: would become {value}; a text that looks like a number needs two pairs "
            f"of quotes: \"{key}='{typed}'\""
        )


def _unknown_key(key: str, typed: str) -> str:
    value = typed.partition("=")[2]
    last = key.rpartition(".")[2]
    other = _ELSEWHERE.get(key) or _ELSEWHERE.get(last)
    if key.split(".")[0] in ("finetune", "pretrain") and other and last in other:
        other = None
    if other is not None:
        limit = limit_of(KEYS[other])
        return f"unknown key {key!r}; did you mean {other}={value}?" + (f" ({limit})" if limit else "")
    if close := difflib.get_close_matches(key, KEYS, n=1, cutoff=0.85):
        return f"unknown key {key!r}; did you mean {close[0]}={value}?"
    hint = nearest(key, list(KEYS), "keys")
    if not hint.startswith("did you mean"):
        hint = "`python -m jetscale.train --help` lists all keys"
    return f"unknown key {key!r}; {hint}"


def _problems(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        return
    content: Any = value
    for part in reversed(key.split(".")):
        content = {part: content}
    yield from problems(TrainSettings, content)


def _values(override: Override) -> list[Any]:
    """Every value of an override, of a sweep one after the other.

    Raises
    ------
    UsageError
        The sweep names none, or a pattern of files in their place.
    """
    given: Any = override.value()
    if isinstance(given, Glob):
        raise UsageError(f"{override.input_line}: glob(...) chooses among files; name the values instead")
    if override.is_discrete_sweep():
        found = list(override.sweep_iterator())
        if not found:
            raise UsageError(f"{override.input_line}: a sweep without a value; range is (first,end,step)")
        return [one.text if isinstance(one, QuotedString) else one for one in found]
    if override.is_sweep_override():
        raise UsageError(f"{override.input_line}: name the values of a sweep, A,B,C or range(first,end,step)")
    return [override.value()]


_EXTRAS = {
    "joblib": "launchers", "submitit_local": "launchers", "submitit_slurm": "launchers", "ray": "ray",
    "ray_aws": "ray",
}  # fmt: skip
"""Launchers of Hydra's plugins, which are absent from its choices where the plugin is not installed."""

_ENTRY_OF_NOTHING = re.compile(rf"'({'|'.join(map(re.escape, replaced_keys(TrainSettings)))})\.([^']+)'; Key")
"""Hydra's message where one entry is given of a mapping that there is not, ``pretrain.composition.QCD=1``."""

_HYDRAS_OWN = ("object_type=", "reference_type=", "full_key:", "To append to your config use")
"""Lines of Hydra's messages that repeat the key, or give advice that cannot work here."""


def explanation(error: BaseException) -> str | None:
    """The line that tells a user of `error`; None for a fault of the program."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and name in _EXTRAS:
            return f"{group}={name}: its plugin of Hydra is not installed: {install_extra(_EXTRAS[name])}"
        return _no_choice(group, name, list(error.options))
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    if ours := next((one for one in chain if explains_itself(one)), None):
        return told(ours)
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return None
    # Hydra's message is incomplete without OmegaConf's, which names the key
    words = [str(one) for one in chain if isinstance(one, (HydraException, OmegaConfBaseException))]
    lines = [line.strip(" .") for text in words for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(_HYDRAS_OWN)]
    if entry := _ENTRY_OF_NOTHING.search("; ".join(kept)):
        key, name = entry.groups()
        return f"{key}.{name}: {key} is no mapping that has entries; give all of it, {key}={{{name}: VALUE}}"
    if any("BasicLauncherConf" in line for line in kept):
        kept.append("choose the launcher too, hydra/launcher=joblib or another")
    return "; ".join(dict.fromkeys(kept))
