"""Passwords and keys stay out of what a run writes.

`masked` looks for them where people put them: user and password of an address, parameters of its query and
fragment, ``name=value`` and ``name: value`` in text, headers, flags of a command line; for the shapes of
well-known keys; and for the values of this process's own environment variables that are named like secrets.
In doubt it hides: what it changes is for reading only.

`without_folders` shortens paths of this machine, for what leaves it: a home folder names its owner.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"

_SECRET_WORD = re.compile(
    r"(password|passwd|passphrase|passwort|secret|token|apikey|accesskey|secretkey|privatekey|credentials?"
    r"|authorization|jwt|bearer|signature)$"
)
"""How the last word of a secret's name ends, in lower case: ``dbpassword`` too, but not ``tokens``."""
_SHORT_WORDS = {"pass", "pwd", "pw", "auth"}
"""Names of secrets where they stand before an equals sign or as a key; in prose they are ordinary words."""
_KEYS_THAT_OPEN = {
    "api", "access", "secret", "private", "signing", "encryption", "account", "shared", "auth", "session",
    "service", "sas", "ssh", "deploy", "master", "license", "storage", "wandb", "client",
}  # fmt: skip
"""A ``key`` is a secret after one of these words: ``api_key``, and not a bare ``key``."""
_IN_QUERIES = re.compile(
    r"key|token|secret|passw|passphrase|credential|jwt|signature|bearer|session"
    r"|(?<![a-z])(pass|pwd|pw|auth|authorization|sig|sas|se|sid|code)(?![a-z])",
    re.IGNORECASE,
)
"""Names of parameters of an address; more than elsewhere, since nobody needs those of a signed link."""

_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]{1,30}:/+"
_ANOTHER = r"[a-zA-Z][a-zA-Z0-9+.-]{1,30}://"
"""Where the next address begins. Both slashes: a secret may hold ``p:/``, and in doubt it is hidden."""
_PORT = r"\d{1,5}(?:[/?#'\",)\]}\s]|$)"
_IN_URL = re.compile(
    # one slash: pathlib makes s3:/ of s3://
    rf"(?:(?P<scheme>(?<!\w)(?!file:){_SCHEME})|(?<![\w:/.])//)(?!\[[0-9a-fA-F:.]+\])"
    # user:password up to the last @, since a secret of AWS holds slashes and a password may hold an @
    rf"(?:[^\s/:'\"?#]*:(?!{_PORT})(?:(?!{_ANOTHER})\S){{1,1000}}|(?(scheme)[^/\s?#'\"]+|(?!)))@"
)
_ENCODED_URL = re.compile(r"(%3A(?:%2F){1,2})(?:(?!%40|%3F)[^\s'\"&]){1,1000}?%40", re.IGNORECASE)
# no address: me:password@host.org, me:password@localhost, me:password@proxy:3128
_LOGIN = re.compile(
    r"(?<![\w/.+:@-])(?!(?:mailto|e-?mail|from|to|cc|by|author|contact|maintainer)s?:)"
    r"[\w.+-]{1,100}:[^\s/'\",;@]{3,200}(?:@[^\s/'\",;@]{1,200}){0,3}@"
    r"(?=[\w-]+(?:\.[\w-]+)+|localhost|[\w-]+:\d)(?!sha\d+:)",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    r"(?:[?&;#]|\\u0026)(?P<name>[^=&;#?\s'\"%]{1,200}|(?:%[\da-f]{2}|[\w.-])+)(?:=|%3D)", re.I
)
_PARAMETER_VALUE = re.compile(r"(?:(?!%26|\\u0026)[^&#\s'\"])+", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    r"(?<![\w/])(?P<name>[A-Za-z_][\w.\-]{0,100})(?:\\*['\"])?\s{0,3}(?P<sign>=|:(?!/)|%3D|=>)\s{0,3}", re.I
)
_FLAG = re.compile(r"(?<![\w-])--?(?P<name>[A-Za-z][\w-]{0,60})(?:['\"],?)?\s{1,3}(?=[^\s-]|-[^-\s])")
_VALUE = re.compile(
    r"[bBrRuUfF]{0,2}(?P<quote>\\*['\"])(?P<quoted>.+?)(?:(?P=quote)|(?=[\r\n])|\Z)"
    r"|(?:(?:bearer|basic|digest|token|negotiate|apikey)(?:\s+|%20))?[^\s'\"]*[^\s'\",;.)}\]]",
    re.IGNORECASE,
)
_HEADERS = re.compile(
    r"((?<![\w-])(?:set-)?cookie\s*:\s*|(?<![\w-])bearer\s+(?=\S*\d|\S{20})|(?<![\w-])basic\s+(?=[\w+/]{16}))"
    r"(?:(?<=:)[^\r\n'\"]+|(?<=: )[^\r\n'\"]+|[\w.~+/=-]+)",
    re.IGNORECASE,
)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\beyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*"  # JSON Web Tokens
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}|wandb_v\d_\w{20,}|local-[0-9a-f]{40})",
    re.DOTALL,
)
# W&B's old keys look like commits, which are left where a word or a path says so
_FORTY_HEX = re.compile(r"(?<![\w/@.-])[0-9a-f]{40}(?![\w/.@-])")
_NOT_A_KEY = re.compile(r"(commit|revision|rev|sha1?|hash|head|tree|blob)\W{0,5}$", re.IGNORECASE)

_FOLDER = r"[^\s/'\"`,;:=<>|()\[\]{}]+/"
_PATH = re.compile(
    rf"(?:file://|(?<![\w.:/~*-]))(?:~[\w.-]*/(?:{_FOLDER})*|/(?:{_FOLDER})+)(?P<name>[^\s/'\"`,;:<>|()\[\]{{}}]*)"
)
"""An absolute path, or one in somebody's home, with at least one folder; no path of an address."""

_SHORTEST_VALUE = 6
_LONG_VALUE = 16
"""From here on a value of the environment is hidden inside longer words too."""
_ORDINARY_VALUES = {"default", "disabled", "enabled", "online", "offline"}


def masked(text: str) -> str:
    """`text` with every password, token and key replaced by ``***``."""
    return _masked(text, _environment_secrets())


def masked_tree(content: Any) -> Any:
    """`content` of dicts and lists with every string masked, and all that stands under a secret's name."""
    return _masked_tree(content, _environment_secrets(), "")


def without_folders(text: str) -> str:
    """`text` with every absolute path shortened to its last name: ``/home/me/jets`` becomes ``***/jets``."""
    if (
        text.startswith(("/", "~", "file:/")) and "\n" not in text
    ):  # all of it is a path, which may hold spaces
        return f"{MASK}/{Path(text).name}"
    return _PATH.sub(rf"{MASK}/\g<name>", text)


def tree_without_folders(content: Any) -> Any:
    """`content` of dicts and lists with `without_folders` applied to every value that is a string."""
    if isinstance(content, dict):
        return {name: tree_without_folders(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [tree_without_folders(value) for value in content]
    return without_folders(content) if isinstance(content, str) else content


def is_secret_name(name: str) -> bool:
    """Whether a setting, a flag or an environment variable of this name holds a secret.

    ``password``, ``AWS_SECRET_ACCESS_KEY``, ``fs.authToken``; not ``key``, ``tokens`` or ``token_count``.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", unquote(name))
    words = [word for word in re.split(r"[\W_]+|(?<=[A-Za-z])\d+$", spaced.lower()) if word]
    if words[-2:] == ["key", "id"]:  # AWS_ACCESS_KEY_ID
        words.pop()
    if not words:
        return False
    if words[-1] == "key":
        return len(words) > 1 and words[-2] in _KEYS_THAT_OPEN
    return _SECRET_WORD.search(words[-1]) is not None


def _is_secret_key(name: str) -> bool:
    last = re.split(r"[\W_]+", name.lower())[-1]
    return last in _SHORT_WORDS or is_secret_name(name)


def _masked(text: str, known: re.Pattern[str] | None, before: str = "") -> str:
    if known is not None:
        text = known.sub(MASK, text)
    text = _SHAPES.sub(MASK, text)
    text = _IN_URL.sub(lambda found: f"{found['scheme'] or '//'}{MASK}@", text)
    text = _ENCODED_URL.sub(rf"\g<1>{MASK}%40", text)
    text = _LOGIN.sub(f"{MASK}@", text)
    text = _HEADERS.sub(rf"\g<1>{MASK}", text)
    text = _hide_values(text, _PARAMETER, _PARAMETER_VALUE, _is_parameter)
    text = _hide_values(text, _ASSIGNMENT, _VALUE, _is_assignment)
    text = _hide_values(text, _FLAG, _VALUE, lambda found: _is_secret_key(found["name"]))
    return _FORTY_HEX.sub(
        lambda found: found[0] if _NOT_A_KEY.search(before + text[: found.start()][-20:]) else MASK, text
    )


def _masked_tree(content: Any, known: re.Pattern[str] | None, key: str) -> Any:
    if isinstance(content, dict):
        return {
            _masked_tree(name, known, ""): _hidden(value)
            if isinstance(name, str) and _is_secret_key(name)
            else _masked_tree(value, known, str(name))
            for name, value in content.items()
        }
    if isinstance(content, (list, tuple)):
        return [_masked_tree(value, known, key) for value in content]
    return _masked(content, known, key) if isinstance(content, str) else content


def _hidden(value: Any) -> Any:
    """What stands under a secret's name: its shape stays, nothing else."""
    if isinstance(value, dict):
        return {name: _hidden(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(entry) for entry in value]
    return value if value is None or isinstance(value, bool) or value == "" else MASK


def _hide_values(
    text: str, names: re.Pattern[str], values: re.Pattern[str], secret: Callable[[re.Match[str]], bool]
) -> str:
    """`text` with the value after each name that is a secret's replaced, its quotes kept."""
    kept: list[str] = []
    done = at = 0
    while found := names.search(text, at):
        at = found.end()
        value = values.match(text, at) if secret(found) else None
        if value is None or value[0].startswith(MASK):
            continue
        quoted = "quoted" in value.re.groupindex and value["quoted"] is not None
        begin, at = value.span("quoted") if quoted else value.span()
        kept += [text[done:begin], MASK]
        done = at
    return "".join([*kept, text[done:]])


def _is_parameter(found: re.Match[str]) -> bool:
    return _IN_QUERIES.search(unquote(found["name"])) is not None


def _is_assignment(found: re.Match[str]) -> bool:
    return _is_secret_key(found["name"]) if found["sign"] != ":" else is_secret_name(found["name"])


def _environment_secrets() -> re.Pattern[str] | None:
    """The values of this process's environment variables that are named like secrets."""
    found: set[str] = set()
    for name in list(os.environ):
        value = os.environ.get(name, "")  # W&B's client deletes variables in a thread of its own meanwhile
        if len(value) < _SHORTEST_VALUE or not is_secret_name(name) or value.lower() in _ORDINARY_VALUES:
            continue
        if not value.startswith(("/", "~")) or not Path(value).expanduser().exists():  # not a file's name
            found |= {value, quote(value, safe="")}
    if not found:
        return None
    longest_first = sorted(found, key=lambda value: (-len(value), value))
    return re.compile(
        "|".join(
            re.escape(value) if len(value) >= _LONG_VALUE else rf"(?<!\w){re.escape(value)}(?!\w)"
            for value in longest_first
        )
    )
