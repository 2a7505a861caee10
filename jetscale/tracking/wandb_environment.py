"""W&B settings from the user's environment: its usual variables, its key, and their order of precedence.

A setting given to jetscale wins over a variable of the environment, which wins over jetscale's default.
"""

from __future__ import annotations

import logging
import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from jetscale.common.masking import masked
from jetscale.runs.layout import WANDB_ID

log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]

DEFAULT_PROJECT = "jetscale"

_MODES: dict[str, Mode] = {
    "online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline",
    "disabled": "disabled",
}  # fmt: skip
"""Values of ``WANDB_MODE``; ``run`` and ``dryrun`` are older names."""
_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Destination:
    """Where a run goes and what it is called there.

    Attributes
    ----------
    project, entity, group, name, tags : as W&B's
    job_type, notes : as W&B's
    """

    project: str | None
    entity: str | None
    group: str
    name: str
    tags: tuple[str, ...]
    job_type: str = "train"
    notes: str | None = None

    def obeying(self) -> Destination:
        """Fill in from the environment what no setting gives.

        ``WANDB_PROJECT`` and ``WANDB_ENTITY`` count where the setting is None; ``WANDB_RUN_GROUP``,
        ``WANDB_NAME``, ``WANDB_JOB_TYPE`` and ``WANDB_NOTES``, which no setting gives, always;
        ``WANDB_TAGS`` (separated by commas) are added.
        """
        more = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",")]
        return Destination(
            project=self.project or _said("WANDB_PROJECT") or DEFAULT_PROJECT,
            entity=self.entity or _said("WANDB_ENTITY"),
            group=_said("WANDB_RUN_GROUP") or self.group,
            name=_said("WANDB_NAME") or self.name,
            tags=tuple(dict.fromkeys([*self.tags, *filter(None, more)])),
            job_type=_said("WANDB_JOB_TYPE") or self.job_type,
            notes=_said("WANDB_NOTES") or self.notes,
        )


def chosen_mode(setting: str) -> Mode:
    """Decide whether a run is sent, kept on disk for W&B, or neither; in doubt it is kept, with a warning.

    Parameters
    ----------
    setting : ``online``, ``offline``, ``disabled``, or ``auto``: ``WANDB_MODE`` decides, and without it
        whether there is a key
    """
    mode = _MODES.get(setting) or _mode_of_environment()
    if mode == "disabled" or mode == "offline":
        return mode
    try:
        if has_key():
            return "online"
    except Exception as error:  # whatever is wrong with the file, a run does not depend on it
        log.warning("W&B: %s; the run is kept offline", masked(str(error)))
        return "offline"
    if mode == "online":  # on a terminal the client would ask for a key, and wait for the answer
        log.warning("W&B: no key (set WANDB_API_KEY, or run `wandb login`); the run is kept offline")
    return "offline"


def _mode_of_environment() -> Mode | None:
    if os.environ.get("WANDB_DISABLED", "").lower() not in _FALSE:
        return "disabled"
    said = _said("WANDB_MODE")
    if said is not None and said.lower() not in _MODES:
        known = ", ".join(_MODES)
        log.warning("W&B: WANDB_MODE=%s is none of %s; the run goes on without W&B", said, known)
        return "disabled"
    return None if said is None else _MODES[said.lower()]


def folder_for(directory: Path) -> Path:
    """Where the client puts its files: ``WANDB_DIR``, else the run directory."""
    said = _said("WANDB_DIR")
    return (directory if said is None else Path(said).expanduser()).resolve()


def warn_of_a_shared_id() -> None:
    """Say that ``WANDB_RUN_ID`` is not used: runs of a sweep would become one. W&B's own agent may set it."""
    if _said("WANDB_RUN_ID") and not _said("WANDB_SWEEP_ID"):
        log.warning("W&B: WANDB_RUN_ID is not used: every run directory keeps its own id, in %s", WANDB_ID)


def has_key() -> bool:
    """Whether the client would find a key for its server: in the environment, or in the netrc file.

    Raises
    ------
    ValueError
        The netrc file cannot be read, or it is none.
    """
    if _said("WANDB_API_KEY") or _said("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = urlsplit(_said("WANDB_BASE_URL") or "https://api.wandb.ai")
    path = _netrc_file()
    try:
        entries = netrc.netrc(path)
    except FileNotFoundError:
        return False
    except Exception as error:  # unreadable, a folder, not text, or nothing that netrc understands
        raise ValueError(f"{path} cannot be read for a key ({type(error).__name__}: {error})") from error
    return any(entries.authenticators(host) for host in (server.netloc, server.hostname) if host)


def _netrc_file() -> Path:
    """The file that the client reads too."""
    if said := _said("NETRC"):
        return Path(said).expanduser()
    usual = Path("~/.netrc").expanduser()
    other = Path("~/_netrc").expanduser()
    return other if other.exists() and not usual.exists() else usual


def _said(variable: str) -> str | None:
    return os.environ.get(variable) or None
