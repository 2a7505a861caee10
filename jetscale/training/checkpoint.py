"""Checkpoints: whole or absent, verified on load, without code in them.

The checksum of a checkpoint is inside it, as the comment that ends a ZIP archive (which torch's files are),
so that no kill can part the two; `torch.load` reads such a file as any other. The JSON beside it is for
people; where it is there, it must fit.

A checkpoint holds everything a phase needs to go on exactly: weights, their moving average, the optimiser
and the losses since the last metrics line. The position in the data is the step itself (order is a pure
function of it).
"""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash

from jetscale.common.files import CHECKSUM, DamagedFile, atomic_path, sha256_file, writing
from jetscale.model import DEFAULT
from jetscale.runs.layout import checkpoint_name
from jetscale.runs.sealed import read_json, write_json_sealed

log = logging.getLogger(__name__)

_ZIP_END = b"PK\5\6"
_END_BYTES = 22  # of a ZIP archive without a comment; the last two are the comment's length
_LABEL = f"{CHECKSUM}:".encode()
_COMMENT_BYTES = len(_LABEL) + 32


class CheckpointError(RuntimeError):
    """No checkpoint of this phase can be read although there are some."""


@dataclass(frozen=True)
class Checkpoints:
    """``last`` and the one before it, for one phase in one directory."""

    directory: Path
    phase: str

    def _file(self, which: str) -> Path:
        return self.directory / checkpoint_name(self.phase, which)

    def save(self, state: dict[str, Any], step: int) -> Path:
        """Write a new ``last`` and keep the old one as ``previous``."""
        last, previous = self._file("last"), self._file("previous")
        if last.exists():
            # at no moment is a checkpoint next to the checksum of another one: a kill leaves it without
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
    whole = _with_checksum(buffer.getvalue())
    with writing(_meta(path)):
        _meta(path).unlink(missing_ok=True)  # left by a kill
    with atomic_path(path) as aside:
        aside.write_bytes(whole)
    content = {"step": step, CHECKSUM: whole[-32:].decode(), "torch": torch.__version__}
    write_json_sealed(_meta(path), content)


def _with_checksum(archive: bytes) -> bytes:
    """A ZIP archive with a comment that is the checksum of all that is before it."""
    assert archive[-_END_BYTES:].startswith(_ZIP_END)
    body = archive[:-2] + struct.pack("<H", _COMMENT_BYTES)
    return body + _LABEL + xxhash.xxh3_128_hexdigest(body).encode()


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
    content = path.read_bytes()
    if content[-_COMMENT_BYTES:].startswith(_LABEL):
        body, found = content[:-_COMMENT_BYTES], content[-32:].decode(errors="replace")
        if xxhash.xxh3_128_hexdigest(body) != found:
            raise CheckpointError(f"{path} is damaged: its content does not fit its checksum")
        _check_meta(path, found)
    else:
        _check_earlier(path)
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


def _check_meta(path: Path, checksum: str) -> None:
    """Stop where the JSON beside a checkpoint is damaged or belongs to another one."""
    meta = _meta(path)
    if not meta.exists():  # killed between the two files, a checkpoint is whole and has no JSON yet
        return
    try:
        stated = read_json(meta)[0].get(CHECKSUM)
    except DamagedFile as error:
        raise CheckpointError(str(error)) from error
    if stated != checksum:
        raise CheckpointError(f"{meta} is damaged: it is not that of {path.name}")


def _check_earlier(path: Path) -> None:
    """A checkpoint without a checksum inside: its SHA-256 is in the JSON, or nothing vouches for it."""
    meta = _meta(path)
    try:
        expected = read_json(meta)[0].get("sha256")
    except FileNotFoundError:
        expected = None
    except DamagedFile as error:
        raise CheckpointError(str(error)) from error
    if expected is None:
        raise CheckpointError(
            f"{path} is damaged or cannot be read: it has no checksum, neither inside nor in {meta.name}"
        )
    if sha256_file(path) != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {meta.name}")
