"""Writes checkpoints, and gives a phase back the newest one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning as L

from jetscale.runs.search import to_remove
from jetscale.runs.weights_file import CheckpointError
from jetscale.training import ranks
from jetscale.training.callbacks.metrics_writer import MetricsWriter
from jetscale.training.checkpoint import require_arch
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.user_additions import require_plain_state

log = logging.getLogger(__name__)


class Checkpointer(L.Callback):
    """Writes a checkpoint at the steps that the schedule names.

    A checkpoint holds the state of the module, of the user's callbacks, and what the metrics lines were.

    Parameters
    ----------
    writer : its lines and its wall time belong to the checkpoint
    users : the user's callbacks by their names in the settings
    stamp : fingerprint of the data, which must be the same when the phase goes on
    precision : of the trainer, which must be the same too: ``device.precision=auto`` is not the same
        everywhere
    """

    def __init__(
        self, writer: MetricsWriter, users: Mapping[str, L.Callback], stamp: str, precision: str
    ) -> None:
        self._writer = writer
        self._users = users
        self._stamp = stamp
        self._identity = writer.outputs.checkpoints.identity
        self._precision = precision

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint where it is due after this step."""
        assert isinstance(pl_module, LeanClassifier)
        if self._writer.schedule.saves(pl_module.step):
            self.save(pl_module)

    def save(self, module: LeanClassifier) -> None:
        """Write a checkpoint now; every rank must call.

        Raises
        ------
        NonFiniteLoss
            A loss since the last metrics line is not finite: the checkpoint before is the last good one.
        SettingsError
            The state of a user's callback cannot be kept in a checkpoint.
        """
        self._writer.require_finite_losses(module)
        state = {**module.state(), "stamp": self._stamp, "seconds": self._writer.seconds}
        state |= {"identity": self._identity, "precision": self._precision}
        since = self._writer.schedule.last_line(module.step)
        state["losses"] = module.window_losses(since)()
        if not ranks.is_first():
            return
        outputs = self._writer.outputs
        outputs.metrics.sync()
        state["metrics"] = outputs.metrics.mark(outputs.phase, module.step)
        if self._users:
            state["callbacks"] = {
                name: require_plain_state(name, callback.state_dict())
                for name, callback in self._users.items()
            }
        outputs.checkpoints.save(state, module.step)

    def restore(self, module: LeanClassifier) -> None:
        """Put module, callbacks and files back to the newest checkpoint, or to the start without one.

        Raises
        ------
        CheckpointError
            No checkpoint can be read, or it was made on other data, with other settings or in another
            precision.
        """
        outputs = self._writer.outputs
        state = outputs.checkpoints.load()
        if state is not None:
            require_arch(state, module.model.arch, outputs.checkpoints.newest())
            if state["stamp"] != self._stamp:
                raise CheckpointError(
                    f"{outputs.checkpoints.newest()} was made on other data ({state['stamp'][:12]}, now "
                    f"{self._stamp[:12]}); put the data back, or remove {to_remove(outputs.directory)} to "
                    "start anew"
                )
            self._require_same_run(state)
            schedule = self._writer.schedule
            schedule.resumed_at = state["step"]
            schedule.line_before = module.resume(state)
            self._writer.seconds_before = state["seconds"]
            for name, kept in state.get("callbacks", {}).items():
                self._users[name].load_state_dict(kept)
            log.info("%s: going on after step %d", outputs.phase, module.start_step)
        if ranks.is_first():
            mark = None if state is None else state.get("metrics")
            outputs.rewind(module.start_step, self._writer.schedule.evaluations, mark)

    def _require_same_run(self, state: Mapping[str, Any]) -> None:
        """Raise where a checkpoint was copied here from another run, or is continued in another precision.

        One of an earlier version tells neither.
        """
        path = self._writer.outputs.checkpoints.newest()
        then, now = state.get("identity", self._identity)[:12], self._identity[:12]
        if then != now:
            raise CheckpointError(
                f"{path} is of a run with other settings ({then}, now {now}); remove "
                f"{to_remove(self._writer.outputs.directory)} to start this one anew"
            )
        then, now = state.get("precision", self._precision), self._precision
        if then != now:
            raise CheckpointError(
                f"{path} was made with the precision {then}, and device.precision=auto means {now} here; go "
                f"on where the run was begun, or remove {to_remove(self._writer.outputs.directory)} to start "
                "it anew"
            )
