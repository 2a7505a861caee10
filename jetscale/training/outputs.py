"""Where one phase writes, and at which steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetscale.common.files import remove_leftovers
from jetscale.runs.blocks import BlockLog, BlocksError, disagreement
from jetscale.runs.metrics import MetricsError, MetricsLine, MetricsLog, line_of
from jetscale.runs.search import to_remove
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.checkpoint import Checkpoints
from jetscale.training.phase_settings import Phase
from jetscale.training.user_additions import UserLoggers


@dataclass
class Outputs:
    """Where one phase writes; the same on every rank, used on the first alone."""

    phase: Phase
    metrics: MetricsLog
    blocks: BlockLog
    checkpoints: Checkpoints
    wandb: WandbRun
    loggers: UserLoggers = field(default_factory=UserLoggers)

    def write(self, line: MetricsLine) -> None:
        """Write one line to ``metrics.jsonl``, W&B and the user's loggers."""
        self.metrics.append(line)
        self.wandb.log(line)
        self.loggers.log(line)

    @property
    def directory(self) -> Path:
        """The run directory, or that of a pretrained backbone in its library."""
        return self.metrics.path.parent

    def rewind(self, step: int, evaluations: frozenset[int], mark: dict[str, Any] | None = None) -> None:
        """Drop what was written beyond `step`: a run that goes on from there writes it again, the same.

        The user's loggers are told what is left.

        Parameters
        ----------
        step : of the checkpoint that the phase goes on from; 0 for a start without one
        evaluations : steps at which the test loss is taken
        mark : what the checkpoint of `step` remembers of the lines (`MetricsLog.mark`); None where there is
            no checkpoint, or one of an earlier version

        Raises
        ------
        MetricsError, BlocksError
            One of the `evaluations` up to `step` is missing, which no start would make again; or what is
            there is not what the checkpoint was written with.
        """
        for directory in (self.directory, self.checkpoints.directory):
            remove_leftovers(directory)
        self._require_whole(step, evaluations, mark)
        self.metrics.keep_until(self.phase, step)
        self.blocks.keep_until(self.phase, step)
        if self.loggers.all:
            self.loggers.log(*map(line_of, self.metrics.until(self.phase, step)))

    @property
    def _way_out(self) -> str:
        return (
            f"put back an undamaged copy of it, or remove {to_remove(self.directory)} to make the run anew, "
            "to the same numbers"
        )

    def _require_whole(self, step: int, evaluations: frozenset[int], mark: dict[str, Any] | None) -> None:
        lines = self.metrics.until(self.phase, step)
        sums = {key: found for key, found in self.blocks.sums(self.phase).items() if key[0] <= step}
        evaluated = {(line["step"], line["weights"]) for line in lines if line["split"] == "test"}
        due = {(evaluation, "raw") for evaluation in evaluations if evaluation <= step}
        due |= evaluated | set(sums)
        for path, found, error in (
            (self.metrics.path, evaluated, MetricsError),
            (self.blocks.path, set(sums), BlocksError),
        ):
            if missing := due - found:
                raise error(
                    f"{path} lacks the evaluation after step {min(missing)[0]}, and the checkpoint is of "
                    f"step {step}; {self._way_out}"
                )
        if mark is not None and self.metrics.mark(self.phase, step) != mark:
            raise MetricsError(
                f"{self.metrics.path} is damaged: its lines up to step {step} are not those that the "
                f"checkpoint of that step was written with; {self._way_out}"
            )
        if wrong := disagreement(lines, sums):
            raise BlocksError(f"{self.blocks.path} is damaged: it {wrong}; {self._way_out}")


@dataclass
class Schedule:
    """The steps that write.

    Attributes
    ----------
    steps : the last step
    log_every : steps between lines of the training loss
    checkpoint_every : steps between checkpoints
    evaluations : steps after which the test loss is taken
    resumed_at : step that this start goes on from; 0 where it begins
    line_before : step of the last line of the training loss up to `resumed_at`; 0 for none. It need not be a
        multiple of `log_every`, which may have been another one then
    """

    steps: int
    log_every: int
    checkpoint_every: int
    evaluations: frozenset[int]
    resumed_at: int = 0
    line_before: int = 0

    def writes_line(self, step: int) -> bool:
        """Whether `step` ends a window of the training loss."""
        return step % self.log_every == 0 or step == self.steps

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows `step`; the last step needs none, the phase's weights follow it."""
        return step % self.checkpoint_every == 0 and step < self.steps

    def window_start(self, step: int) -> int:
        """Step of the last line before `step`: the window that `step` is in begins after it."""
        start = (step - 1) // self.log_every * self.log_every
        return start if start > self.resumed_at else self.line_before

    def last_line(self, step: int) -> int:
        """Step of the last line once that of `step` is written, if it has one."""
        return step if self.writes_line(step) else self.window_start(step)
