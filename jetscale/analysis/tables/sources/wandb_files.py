"""Copies of run directories that finished runs have left in W&B (`jetscale.runs.shared_copy`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from jetscale.analysis.tables.sources.patience import patiently
from jetscale.runs.layout import DONE, SHARED_COPY
from jetscale.runs.shared_copy import COPIED


def fetch(run: Any, folder: Path) -> Path | None:
    """Download the copy of one run of the W&B client; None where it runs still or has left none.

    Parameters
    ----------
    run : of `wandb.Api`
    folder : where to; the run's files are put below it

    Raises
    ------
    UsageError
        A download that fails every attempt. What arrives is compared with its checksums by its reader.
    """
    if run.state == "running":
        return None  # it goes on beyond a copy that an earlier end has left
    names = [f"{SHARED_COPY}/{name}" for name in COPIED]
    where = f"W&B run {run.id}"
    files = {file.name: file for file in patiently(f"files of {where}", lambda: list(run.files(names)))}
    if f"{SHARED_COPY}/{DONE}" not in files:
        return None
    for name in names:
        if name in files:
            patiently(f"{where}, file {name}", partial(_download, files[name], folder))
    copy = folder / SHARED_COPY
    ended = run.summary.get("_timestamp")
    if isinstance(ended, int | float):  # the day on which the run was finished, which the report names
        os.utime(copy / DONE, (ended, ended))
    return copy


def _download(file: Any, folder: Path) -> None:
    file.download(root=str(folder), replace=True).close()


def copies_in(logs: Iterable[Path]) -> dict[str, Path]:
    """Copies in folders of offline runs, by W&B's run id; of a resumed run that of its last piece.

    Parameters
    ----------
    logs : the ``.wandb`` file of each folder
    """
    found: dict[str, Path] = {}
    for log in sorted(logs, key=lambda log: log.parent.name):  # offline-run-<time>-<id>
        copy = log.parent / "files" / SHARED_COPY
        if (copy / DONE).is_file():
            found[run_id(log)] = copy
    return found


def run_id(log: Path) -> str:
    """The run id in the name of a ``run-ID.wandb`` file."""
    return log.stem.removeprefix("run-")
