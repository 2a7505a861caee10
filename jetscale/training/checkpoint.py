"""Checkpoints: whole or absent, verified on load (`jetscale.runs.weights_file`), without code in them.

A checkpoint holds everything a phase needs to go on exactly: weights, their moving average, the optimiser,
the states of torch's random generators, and the losses since the last metrics line. The position in the data
is the step itself (order is a pure function of it).
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jetscale.common.files import CHECKSUM, atomic_path, writing
from jetscale.model import DEFAULT
from jetscale.runs.layout import checkpoint_name
from jetscale.runs.sealed import write_json_sealed
from jetscale.runs.weights_file import CheckpointError, meta_of, verified_content, with_checksum

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """``last`` and the one before it, for one phase in one directory.

    Attributes
    ----------
    directory : their folder
    phase : ``pretrain`` or ``finetune``
    identity : fingerprint of the settings that decide the numbers of the run, or backbone, they belong to
    """

    directory: Path
    phase: str
    identity: str = ""

    def _file(self, which: str) -> Path:
        return self.directory / checkpoint_name(self.phase, which)

    def save(self, state: dict[str, Any], step: int) -> Path:
        """Write a new ``last`` and keep the old one as ``previous``."""
        last, previous = self._file("last"), self._file("previous")
        if last.exists():
            # at no moment is a checkpoint next to the checksum of another one: a kill leaves it without
            meta_of(previous).unlink(missing_ok=True)
            last.replace(previous)
            if meta_of(last).exists():
                meta_of(last).replace(meta_of(previous))
        _write(last, state, step)
        return last

    def load(self) -> dict[str, Any] | None:
        """State of the newest whole checkpoint; None where there is none.

        Raises
        ------
        CheckpointError
            There are checkpoints, and none is whole.
        """
        damaged = []
        for which in ("last", "previous"):
            path = self._file(which)
            if not path.exists():
                continue
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                log.warning("%s", error)
                damaged.append(str(path))
        if damaged:
            raise CheckpointError(
                f"no checkpoint can be used: {', '.join(damaged)}; remove them to start the phase anew"
            )
        return None

    def newest(self) -> Path | None:
        """Path of the newest checkpoint, for messages."""
        return next((path for which in ("last", "previous") if (path := self._file(which)).exists()), None)

    def remove(self) -> None:
        """Delete them: the phase is finished and its weights are kept elsewhere."""
        for which in ("last", "previous"):
            self._file(which).unlink(missing_ok=True)
            meta_of(self._file(which)).unlink(missing_ok=True)


def _write(path: Path, state: dict[str, Any], step: int) -> None:
    buffer = io.BytesIO()  # torch hides the reason why a file cannot be written
    torch.save(state, buffer)
    parts, checksum = with_checksum(buffer.getbuffer())
    with writing(meta_of(path)):
        meta_of(path).unlink(missing_ok=True)  # left by a kill
    with atomic_path(path) as aside, aside.open("wb") as file:
        file.writelines(parts)
    content = {"step": step, CHECKSUM: checksum, "torch": torch.__version__}
    write_json_sealed(meta_of(path), content)


def write_weights(path: Path, state: dict[str, Any], step: int) -> None:
    """Write final weights (``final.pt``) with a readable JSON beside them."""
    _write(path, state, step)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain values only (``weights_only``).

    Raises
    ------
    CheckpointError
        Damaged: its content does not fit its checksum or the JSON beside it, or torch cannot read it; or of
        an earlier version, without its JSON.
    """
    content = verified_content(path)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return state


def require_arch(state: dict[str, Any], arch: str, path: Path | None) -> None:
    """Raise where a checkpoint was made by another kind of network.

    Parameters
    ----------
    state : content of the checkpoint; one without ``arch`` was written when there was only the transformer
    arch : ``model.arch`` of the network that is to take its weights
    path : the checkpoint, for the message

    Raises
    ------
    CheckpointError
    """
    found = state.get("arch", DEFAULT)
    if found != arch:
        raise CheckpointError(
            f"{path} holds the weights of model.arch={found}, and the network to load them is "
            f"model.arch={arch}; set model.arch={found}, or name another folder"
        )
