"""W&B beside the run directory: optional, resumable, and never the reason that a run stops."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jetscale.tracking.metrics import MetricsLine

log = logging.getLogger(__name__)


class WandbRun:
    """One W&B run, or nothing: after the first failure it warns once and stays silent.

    Parameters
    ----------
    mode : ``auto`` (online where a key is set, else offline), ``online``, ``offline`` or ``disabled``
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
        if mode == "disabled":
            return
        identity = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]

        def start() -> None:
            import wandb

            resolved = mode if mode != "auto" else ("online" if _has_key() else "offline")
            self._run = wandb.init(
                id=identity,  # a resumed run goes on under its id
                resume="allow" if resolved == "online" else None,
                mode="online" if resolved == "online" else "offline",
                dir=directory,
                config=config,
                project=project,
                entity=entity,
                group=group,
                name=name,
                tags=tags,
                settings=wandb.Settings(silent=True, x_disable_stats=True),
            )
            # every curve can be drawn against any of the three; W&B's own step counts log calls
            for axis in ("step", "jets", "flops"):
                self._run.define_metric(axis, hidden=True)
            for phase in ("pretrain", "finetune"):
                self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

        self._guarded("start", start)

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
        self._guarded("log", lambda: self._run.log(values))

    def finish(self, summary: dict[str, Any] | None = None, exit_code: int = 0) -> None:
        """Close the run; several runs may share one process."""

        def close() -> None:
            for key, value in (summary or {}).items():
                self._run.summary[key] = value
            self._run.finish(exit_code=exit_code)

        self._guarded("finish", close)
        self._run = None

    def _guarded(self, what: str, call: Callable[[], None]) -> None:
        if self._run is None and what != "start":
            return
        try:
            call()
        except Exception as error:  # W&B fails in many ways, none of which may cost a run
            log.warning(
                "W&B %s failed (%s: %s); the run goes on without it", what, type(error).__name__, error
            )
            self._run = None


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
