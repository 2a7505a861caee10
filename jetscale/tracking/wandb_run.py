"""A run in W&B: optional, resumable, and never the reason that training stops or waits.

The client's calls are made in their own thread, so training waits for W&B at two places only: at its
start (`START_SECONDS`) and at its end (`CLOSE_SECONDS`). Whatever W&B loses is in ``metrics.jsonl``.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from jetscale.common.files import DamagedFile, read_sealed, write_sealed
from jetscale.common.masking import masked, masked_tree, tree_without_folders
from jetscale.common.paper import FLOPS_PER_PARAM_JET
from jetscale.runs.layout import SHARED_COPY, WANDB_ID
from jetscale.runs.metrics import MetricsLine, line_of
from jetscale.runs.shared_copy import write_shared_copy
from jetscale.tracking.wandb_environment import Destination, chosen_mode, folder_for, warn_of_a_shared_id
from jetscale.tracking.wandb_service import Sender, forget_service, kill_service

log = logging.getLogger(__name__)

START_SECONDS = 15.0
"""How long a server may take to accept a run before the run is kept offline."""
UPLOAD_SECONDS = 30.0
"""How long the client may upload after the last line; what is left stays on disk for ``wandb sync``."""
CLOSE_SECONDS = 60.0
"""How long closing may take in all; a client that has not returned by then is killed."""
AFTER_KILL_SECONDS = 5.0
"""How long the thread that calls a killed client is given to notice."""
_PRETRAINING = "pretraining_sent"
"""Key of `WANDB_ID`: whether W&B has the curve of the backbone."""


class WandbRun:
    """One run in W&B; after the first failure it warns once and sends nothing more.

    Parameters
    ----------
    mode : ``auto`` (``WANDB_MODE``; without it online where a key is set, else offline), ``online``,
        ``offline`` or ``disabled``; where the server cannot be reached the run is kept offline, to be sent
        later with ``wandb sync``
    directory : the run directory; W&B's own files go under it, unless ``WANDB_DIR`` says otherwise
    config : settings of the run; sent with credentials masked and paths of this machine shortened
    destination : project, group, name and tags
    steps_before : steps of pretraining, which W&B counts before those of fine-tuning
    """

    def __init__(
        self,
        mode: str,
        directory: Path,
        config: dict[str, Any],
        destination: Destination,
        steps_before: int = 0,
    ) -> None:
        self._run: Any = None
        self._speed = Speed()
        self._n_params: int | None = None
        self._steps_before = steps_before
        self._sender: Sender | None = None
        self._to_sync = ""
        self._directory = directory
        self._pretraining_sent = False
        if mode == "disabled":
            return
        chosen = chosen_mode(mode)
        if chosen == "disabled":
            return
        shown = tree_without_folders(masked_tree(config))
        if chosen == "online":
            self._guarded("start online", lambda: self._start("online", directory, shown, destination))
            if not self.active:  # the service still holds the run's id: "run ID is in use" for what follows
                self._guarded("teardown", forget_service)
        if not self.active:
            self._guarded("start offline", lambda: self._start("offline", directory, shown, destination))
        if self.active:
            self._sender = Sender()

    def _start(
        self, mode: Literal["online", "offline"], directory: Path, config: Any, destination: Destination
    ) -> None:
        import wandb

        run_id = kept_id(directory)
        # before init: it would name the server, password in the URL included, on the terminal
        wandb.setup(wandb.Settings(silent=True))
        self._run = wandb.init(
            id=run_id,
            resume="allow",  # offline too: `wandb sync` else replaces the history that W&B has of this run
            mode=mode,
            dir=folder_for(directory),  # the service may have been started elsewhere
            config=config,
            settings=wandb.Settings(
                silent=True,
                reinit="create_new",  # never another run of this process that was left open
                x_stats_pid=os.getpid(),  # the client remembers the process that imported it, before a fork
                # it would send the command line as typed, passwords in URLs included, the names of user and
                # machine, and every variable of Slurm; the type of the GPU is in the config instead
                x_disable_meta=True,
                disable_git=True,
                disable_code=True,
                host="",
                console="off",  # else every print waits for a service that hangs, and is uploaded
                init_timeout=START_SECONDS,
                finish_timeout=UPLOAD_SECONDS,
                finish_timeout_raises=True,
            ),
            **vars(destination.obeying()),
        )
        if mode == "offline":
            self._to_sync = sync_command(Path(self._run.settings.wandb_dir), run_id)
        for axis in ("step", "jets", "flops"):  # every curve can be drawn against any of the three
            self._run.define_metric(axis, hidden=True)
        for phase in ("pretrain", "finetune"):
            self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    @property
    def active(self) -> bool:
        """Whether lines still go to W&B."""
        return self._run is not None

    def log(self, line: MetricsLine) -> None:
        """Send one line as ``<phase>/<split>_loss`` and so on, with its step, jets and flops; never waits.

        W&B's own ``_step`` is the number of optimiser steps of both phases, so that it goes on where it was
        when the run does; lines of one step make one row.
        """
        if not self.active or self._sender is None:
            return
        self._pretraining_sent |= line.phase == "pretrain"
        run, values = self._run, values_of(line, self._speed.after(line))
        if line.phase == "finetune" and self._n_params is None and line.jets > 0:
            n_params = self._n_params = round(line.flops / (FLOPS_PER_PARAM_JET * line.jets))
            self._send("config", lambda: run.config.update({"n_params": n_params}, allow_val_change=True))
        step = line.step + (self._steps_before if line.phase == "finetune" else 0)
        self._send("log", lambda: run.log(values, step=step))

    def log_pretraining(self, lines: Iterable[dict[str, Any]]) -> None:
        """Send the lines of the whole pretraining, unless W&B has them: this run made it, or sent it before.

        Parameters
        ----------
        lines : entries of the metrics of the backbone that the run starts from, whoever pretrained it
        """
        if self.active:
            self._tried("pretraining curve", lambda: self._log_pretraining(lines))

    def _log_pretraining(self, lines: Iterable[dict[str, Any]]) -> None:
        path = self._directory / WANDB_ID
        kept = read_sealed(path)
        if not (self._pretraining_sent or kept.get(_PRETRAINING)):
            for line in lines:
                self.log(line_of(line))
        write_sealed(path, {**kept, _PRETRAINING: True})

    def finish(
        self, summary: dict[str, Any] | None = None, *, done: bool = False, exit_code: int = 0
    ) -> None:
        """Close the run; waits at most `CLOSE_SECONDS`. Several runs may share one process.

        Parameters
        ----------
        summary : values of the finished run, or its error; sent with credentials masked and paths shortened
        done : the run directory is finished; W&B gets a copy of it (`jetscale.runs.shared_copy`)
        exit_code : W&B shows the run as failed where it is not 0
        """
        run, sender = self._run, self._sender
        if run is None or sender is None:
            return
        if summary:
            shown = tree_without_folders(masked_tree(summary))
            self._send("summary", lambda: run.summary.update(shown))
        if done:
            sender.put(lambda: self._attach_copy(run))
        self._send("finish", lambda: run.finish(exit_code=exit_code))
        if not sender.close(CLOSE_SECONDS):
            log.warning(
                "W&B did not close the run within %g s and is stopped; what it has is on disk (wandb sync)",
                CLOSE_SECONDS,
            )
            self._run = None  # nothing more of the queue is tried
            kill_service()  # and the call that hangs fails
            sender.close(AFTER_KILL_SECONDS)
            forget_service()
        if self._to_sync:
            log.info("the run is kept for W&B; send it with: %s", self._to_sync)
        self._run = self._sender = None

    def _attach_copy(self, run: Any) -> None:
        if self.active:  # a failure must not keep the run from being closed
            self._tried("copy of the run directory", lambda: _attach_copy(run, self._directory))

    def _send(self, what: str, call: Callable[[], Any]) -> None:
        assert self._sender is not None
        self._sender.put(lambda: self._guarded_send(what, call))

    def _guarded_send(self, what: str, call: Callable[[], Any]) -> None:
        if self.active and not self._guarded(what, call):
            forget_service()  # so that the next run of this process starts a new one

    def _guarded(self, what: str, call: Callable[[], Any]) -> bool:
        if not self._tried(what, call):
            self._run = None
            return False
        return True

    def _tried(self, what: str, call: Callable[[], Any]) -> bool:
        try:
            call()
        except Exception as error:  # W&B fails in many ways, none of which may cost a run
            text = masked(f"{type(error).__name__}: {error}")
            log.warning("W&B %s failed (%s); the run goes on without it", what, text)
            return False
        return True


class Speed:
    """Training throughput in jets/s between metrics lines, excluding evaluation time."""

    def __init__(self) -> None:
        self._last: tuple[str, int, float] | None = None

    def after(self, line: MetricsLine) -> float | None:
        """Throughput up to `line`; None after a line of another phase, or at the same jet (an evaluation)."""
        last, self._last = self._last, (line.phase, line.jets, line.seconds)
        if last is None or last[0] != line.phase:
            return None
        jets, seconds = line.jets - last[1], line.seconds - last[2]
        return jets / seconds if jets > 0 and seconds > 0 else None


def values_of(line: MetricsLine, jets_per_second: float | None) -> dict[str, float]:
    """Keys and values that are sent to W&B for one line; `jetscale.tracking.dashboard` draws these keys.

    Parameters
    ----------
    line : the metrics line
    jets_per_second : training throughput up to it; None where it is not known

    Returns
    -------
    Values by key, as ``finetune/test_loss_ema``.
    """
    suffix = "" if line.weights == "raw" else f"_{line.weights}"
    values: dict[str, float] = {
        f"{line.phase}/step": line.step,
        f"{line.phase}/{line.split}_loss{suffix}": line.loss,
        f"{line.phase}/lr": line.lr,
        "step": line.step,
        "jets": line.jets,
        "flops": line.flops,
    }
    if line.accuracy is not None:
        values[f"{line.phase}/{line.split}_accuracy{suffix}"] = line.accuracy
    if jets_per_second is not None:
        values[f"{line.phase}/jets_per_second"] = jets_per_second
    return values


def _attach_copy(run: Any, directory: Path) -> None:
    """Put a copy of the run directory among the run's own files, where ``wandb sync`` finds it too.

    No artifact: the client would keep its file in the user's home folder, which no copy of an offline folder
    has.
    """
    target = Path(run.dir, SHARED_COPY)
    write_shared_copy(directory, target)
    for file in sorted(target.iterdir()):
        run.save(str(file), base_path=run.dir, policy="now", glob=False)


def kept_id(directory: Path) -> str:
    """The id that the run in `directory` has in W&B: made at random by its first start, and kept there.

    A path would not do: it is the same in every container.
    """
    path = directory / WANDB_ID
    try:
        return str(read_sealed(path)["id"])
    except FileNotFoundError:
        warn_of_a_shared_id()
    except (DamagedFile, KeyError) as error:
        log.warning("%s; the run begins anew in W&B", error)
    run_id = secrets.token_hex(6)
    write_sealed(path, {"id": run_id})
    return run_id


def sync_command(folder: Path, run_id: str) -> str:
    """Command that sends every piece of an offline run, the oldest first."""
    return f"wandb sync {shlex.quote(str(folder))}/offline-run-*-{run_id}"
