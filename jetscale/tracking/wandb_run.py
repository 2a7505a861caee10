"""W&B beside the run directory: optional, resumable, and never the reason that a run stops."""

from __future__ import annotations

import hashlib
import logging
import netrc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from jetscale.secrets import masked
from jetscale.tracking.metrics import MetricsLine

log = logging.getLogger(__name__)


class WandbRun:
    """One W&B run, or nothing: after the first failure it warns once and stays silent.

    Parameters
    ----------
    mode : ``auto`` (online where a key is set, else offline), ``online``, ``offline`` or ``disabled``; where
        the server cannot be reached the run is kept offline, to be sent later with ``wandb sync``
    directory : the run directory; W&B's own files go under it
    config, project, entity, group, name, tags : as W&B's
    """

    def __init__(
        self,
        mode: str,
        directory: Path,
        config: dict[str, Any],
        *,
        project: str,
        entity: str | None,
        group: str,
        name: str,
        tags: list[str],
    ) -> None:
        self._run: Any = None
        names: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group,
            "name": name,
            "tags": tags,
        }
        online = mode == "online" or (mode == "auto" and _has_key())
        if online:
            self._guarded("start online", lambda: self._start("online", directory, config, names))
            if not self.active:
                self._guarded("teardown", _forget_failed_start)
        if mode != "disabled" and not self.active:
            self._guarded("start offline", lambda: self._start("offline", directory, config, names))

    def _start(self, mode: Literal["online", "offline"], directory: Path, config: Any, names: Any) -> None:
        import wandb

        command = " ".join(sys.argv)
        self._run = wandb.init(
            id=hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12],  # a resumed run keeps it
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=directory,
            config=config,
            settings=wandb.Settings(
                silent=True,
                x_disable_stats=True,
                x_disable_meta=masked(command) != command,  # W&B would keep the command line
                init_timeout=15,
            ),
            **names,
        )
        for axis in ("step", "jets", "flops"):  # every curve can be drawn against any of the three
            self._run.define_metric(axis, hidden=True)
        for phase in ("pretrain", "finetune"):
            self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    @property
    def active(self) -> bool:
        """Whether lines still go to W&B."""
        return self._run is not None

    def log(self, line: MetricsLine) -> None:
        """Send one line as ``<phase>/<split>_loss`` and so on, with its step, jets and flops."""
        suffix = "" if line.weights == "raw" else f"_{line.weights}"
        values = {
            f"{line.phase}/step": line.step,
            f"{line.phase}/{line.split}_loss{suffix}": line.loss,
            f"{line.phase}/lr": line.lr,
            "step": line.step,
            "jets": line.jets,
            "flops": line.flops,
        }
        if line.accuracy is not None:
            values[f"{line.phase}/{line.split}_accuracy{suffix}"] = line.accuracy
        if self.active:
            self._guarded("log", lambda: self._run.log(values))

    def finish(
        self, summary: dict[str, Any] | None = None, blocks: Path | None = None, exit_code: int = 0
    ) -> None:
        """Close the run, its block losses as an artifact; several runs may share one process."""

        def close() -> None:
            import wandb

            if blocks is not None:
                artifact = wandb.Artifact(f"test-blocks-{self._run.id}", type="test_blocks")
                artifact.add_file(str(blocks))
                self._run.log_artifact(artifact)
            for key, value in (summary or {}).items():
                self._run.summary[key] = value
            self._run.finish(exit_code=exit_code)

        if self.active:
            self._guarded("finish", close)
        self._run = None

    def _guarded(self, what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # W&B fails in many ways, none of which may cost a run
            log.warning(
                "W&B %s failed (%s: %s); the run goes on without it", what, type(error).__name__, error
            )
            self._run = None


def _forget_failed_start() -> None:
    # the client's service still holds the run's id: "run ID is in use" for the offline start that follows
    import wandb

    wandb.teardown()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc().authenticators(host or "") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
