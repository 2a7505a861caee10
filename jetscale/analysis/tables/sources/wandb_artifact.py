"""Block losses from the artifact that a finished run logs: ``test-blocks-<run id>``, type ``test_blocks``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jetscale.analysis.tables.sources.block_files import read
from jetscale.analysis.tables.sources.patience import patiently
from jetscale.analysis.tables.test_blocks import BlockLosses
from jetscale.common.usage import UsageError
from jetscale.runs.layout import BLOCKS, WANDB_ARTIFACT, wandb_artifact_name


def fetch(run: Any, name: str, phase: str) -> BlockLosses | None:
    """Block losses of one run of the W&B client, under `name`; None where it runs still or logged none.

    Raises
    ------
    UsageError
        A download that fails every attempt or differs from the artifact's checksum, no `test_blocks.parquet`
        in it, a file that cannot be read.
    """
    if run.state == "running":
        return None  # logged at the end; the client cannot list one that is still being sent
    artifact = patiently(f"artifacts of W&B run {run.id}", lambda: _latest(run))
    if artifact is None:
        return None
    where = f"W&B run {run.id}, artifact {artifact.name}"
    with TemporaryDirectory() as folder:
        patiently(where, lambda: _download(artifact, folder))
        path = Path(folder) / BLOCKS
        if not path.is_file():
            raise UsageError(f"{where}: holds no {BLOCKS}")
        try:
            return read(path, name, phase)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


def _latest(run: Any) -> Any:
    """The last version: a run that was resumed after its end logs one at each end."""
    logged = [
        artifact
        for artifact in run.logged_artifacts()
        if artifact.type == WANDB_ARTIFACT
        and artifact.name.split(":")[0] == wandb_artifact_name(run.id)
        and artifact.state == "COMMITTED"
    ]
    return max(logged, key=lambda artifact: int(artifact.version.removeprefix("v")), default=None)


def _download(artifact: Any, folder: str) -> None:
    artifact.download(root=folder, skip_cache=True)
    artifact.verify(root=folder)  # the download itself does not look at the checksums
