"""Checkpoints: whole or absent, verified on load, without code in them.

A checkpoint holds everything a phase needs to go on exactly: weights, their moving average, the optimiser
and the losses since the last metrics line. The position in the data is the step itself (order is a pure
function of it).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jetscale.files import atomic_path, sha256_file, write_json, writing

log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """No checkpoint of this phase can be read although there are some."""


@dataclass(frozen=True)
class Checkpoints:
    """``last`` and the one before it, for one phase in one directory."""

    directory: Path
    phase: str

    def _file(self, which: str) -> Path:
        return self.directory / f"{self.phase}.{which}.pt"

    def save(self, state: dict[str, Any], step: int) -> Path:
        """Write a new ``last`` and keep the old one as ``previous``."""
        last, previous = self._file("last"), self._file("previous")
        if last.exists():
            # at no moment does a checkpoint stand beside the checksum of another: a kill leaves it without
            _meta(previous).unlink(missing_ok=True)
            last.replace(previous)
            if _meta(last).exists():
                _meta(last).replace(_meta(previous))
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
            _meta(self._file(which)).unlink(missing_ok=True)


def _meta(path: Path) -> Path:
    return path.with_suffix(".json")


def _write(path: Path, state: dict[str, Any], step: int) -> None:
    buffer = io.BytesIO()  # torch hides the reason why a file cannot be written
    torch.save(state, buffer)
    whole = buffer.getbuffer()
    with writing(_meta(path)):
        _meta(path).unlink(missing_ok=True)  # left by a kill
    with atomic_path(path) as aside:
        aside.write_bytes(whole)
    content = {"step": step, "sha256": hashlib.sha256(whole).hexdigest(), "torch": torch.__version__}
    write_json(_meta(path), content)


def write_weights(path: Path, state: dict[str, Any], step: int) -> None:
    """Write final weights (``final.pt``) with a readable JSON beside them."""
    _write(path, state, step)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain values only (``weights_only``).

    Raises
    ------
    CheckpointError
        Damaged: its checksum differs from the JSON beside it, or torch cannot read it.
    """
    meta = _meta(path)
    if meta.exists():  # killed between the two files, a checkpoint is whole and has no JSON yet
        try:
            expected = json.loads(meta.read_bytes())["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{meta} is damaged: {error}") from error
        if sha256_file(path) != expected:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {meta.name}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return state
