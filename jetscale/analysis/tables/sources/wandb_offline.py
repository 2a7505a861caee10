"""Loss table of offline W&B folders, without a server.

Where every W&B folder is in its run directory, the run directories are read. Else every finished run has left
a copy of its run directory among its W&B files (`jetscale.runs.shared_copy`), which gives the same losses and
block losses. Only of the other runs are W&B's own files read, with a warning.

A ``run-ID.wandb`` file is a LevelDB log of protobuf records: after a 7-byte file header, 32 KiB blocks of
records, each crc32 (4 bytes), length (2, little-endian), type (1: whole, 2: first, 3: middle, 4: last part).
The wandb package contains the message types but, since 0.30, no reader, and promises neither.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.sources.local import load_folders
from jetscale.analysis.tables.sources.wandb_files import copies_in, run_id
from jetscale.analysis.tables.sources.wandb_rows import Fragment, of_runs
from jetscale.common.usage import UsageError
from jetscale.runs.layout import METRICS
from jetscale.runs.search import folders_below

BLOCK = 32 * 1024
FILE_HEADER = 7
RECORD_HEADER = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def load(path: Path, *, phase: str = "finetune") -> LossTable:
    """Read every offline run below `path`.

    Parameters
    ----------
    path : a folder above W&B's folders.
    phase : which phase's losses.

    Returns
    -------
    The loss table, checked.

    Raises
    ------
    UsageError
        No ``.wandb`` file below `path`, or one that is not a W&B log; a copy that is damaged; a folder that
        cannot be listed, or a link that leads nowhere. A torn end (a killed run) is no error.
    """
    # W&B's client makes these links itself, the first to one of the other folders
    left_out = ("latest-run", "debug.log", "debug-internal.log", "debug-core.log")
    below = folders_below(path, left_out=left_out) if path.is_dir() else ()
    files = sorted(
        {(folder / name).resolve() for folder, names in below for name in names if name.endswith(".wandb")}
    )
    if not files:
        raise UsageError(f"{path}: no offline W&B run (a .wandb file) below it")
    folders = sorted({_run_directory(file) for file in files})
    if all((folder / METRICS).is_file() and folder.is_relative_to(path.resolve()) for folder in folders):
        return _of_run_directories(folders, path, phase)
    copies, warnings = copies_in(files), list[str]()
    others = [read_fragment(file) for file in files if run_id(file) not in copies]
    return of_runs(copies, others, f"{path} (offline W&B)", phase, warnings)


def _run_directory(file: Path) -> Path:
    """Run directory of ``<run>/wandb/offline-run-*/run-ID.wandb``."""
    return file.parents[2]


def _of_run_directories(folders: list[Path], path: Path, phase: str) -> LossTable:
    losses = load_folders(folders, path.resolve(), unfinished=True, phase=phase)
    text = f"{path}: read from the run directories around the W&B folders, which are exact (source=local)"
    return replace(losses, source=f"{path} (offline W&B)", warnings=[*losses.warnings, text])


def read_fragment(path: Path) -> Fragment:
    """History, config and summary of one ``.wandb`` file."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # generated

    fragment = Fragment(run="", name=path.parent.name, config={}, rows=[], finished=False)
    for payload in records(path):
        record = Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            fragment.run, fragment.name = record.run.run_id, record.run.display_name or record.run.run_id
            fragment.started = record.run.start_time.ToJsonString()
            fragment.config.update(_items(record.run.config.update))
        elif kind == "config":
            fragment.config.update(_items(record.config.update))
        elif kind == "history":
            fragment.rows.append(_items(record.history.item))
        elif kind == "summary":
            value = _items(record.summary.update).get("n_params")
            fragment.n_params = float(value) if isinstance(value, int | float) else fragment.n_params
        elif kind == "exit":
            fragment.finished = True
    if not fragment.run:
        raise UsageError(f"{path}: no run record in it; the file is damaged or empty")
    return fragment


def records(path: Path) -> Iterator[bytes]:
    """Payloads of a LevelDB log; stops at the first torn record.

    Raises
    ------
    UsageError
        The file does not begin as a W&B log does, or a record does not fit its checksum.
    """
    content = path.read_bytes()
    if content[:4] != b":W&B":
        raise UsageError(f"{path}: not a W&B log (it begins with {content[:4]!r})")
    position, parts = FILE_HEADER, bytearray()
    while position + RECORD_HEADER.size <= len(content):
        left = BLOCK - position % BLOCK
        if left < RECORD_HEADER.size:  # a header never straddles blocks; the rest of the block is zeros
            position += left
            continue
        checksum, length, kind = RECORD_HEADER.unpack_from(content, position)
        begin, end = position + RECORD_HEADER.size, position + RECORD_HEADER.size + length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or end > len(content):
            return
        if zlib.crc32(content[begin:end], zlib.crc32(bytes([kind]))) != checksum:
            raise UsageError(f"{path} is damaged: the record at byte {position} does not fit its checksum")
        if kind in (WHOLE, FIRST):
            parts = bytearray()
        parts += content[begin:end]
        if kind in (WHOLE, LAST):
            yield bytes(parts)
        position = end


def _items(entries: Any) -> dict[str, Any]:
    """Key-value items of a record; nested keys come as lists."""
    found: dict[str, Any] = {}
    for entry in entries:
        keys = [entry.key] if entry.key else list(entry.nested_key)
        try:
            value = json.loads(entry.value_json)
        except ValueError:
            continue  # W&B writes NaN and Infinity as bare words in its own system metrics
        found[".".join(keys)] = value
    return found
