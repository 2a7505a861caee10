"""joblib's worker processes, and how they stop with their driver.

A driver that is asked to stop (ctrl-C, SIGTERM, SIGUSR2, SIGHUP) passes the request on: each worker finishes
its current step, writes the checkpoint of its run and begins no other run; then the driver ends. A driver
that is killed cannot pass anything on: its workers notice that it has ended, do the same, and end.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from jetscale.common import progress
from jetscale.common.orphans import when_gone
from jetscale.launch.launchers import Launch

DRIVER = "JETSCALE_DRIVER"
"""Environment variable with the process id of the driver; a process with another parent ignores it."""
GRACE_SECONDS = 300.0
"""Time that a worker without a driver has to finish its current step or evaluation."""

log = logging.getLogger(__name__)

_asked = False
_running = False
_driver_gone = threading.Event()


class RunStopped(RuntimeError):
    """The run of a worker that was asked to stop; this exception reaches the driver."""


def launch_with(launcher: Any) -> Launch:
    """The launch of joblib's launcher: with as many runs as share a GPU, and stopped like a run.

    Parameters
    ----------
    launcher : a `JoblibLauncher` that is set up

    Returns
    -------
    A launch with the arguments and results of the launcher's.
    """
    launch = passing_stops_on(launcher.launch)

    def launching(overrides: Sequence[Sequence[str]], first: int) -> Sequence[Any]:
        if launcher.joblib["n_jobs"] == -1:
            launcher.joblib["n_jobs"] = _runs_at_once(launcher, overrides[0])
        return launch(overrides, first)

    return launching


def _runs_at_once(launcher: Any, overrides: Sequence[str]) -> int:
    """Runs at a time where the user says nothing, -1 for one a core; `overrides` are those of one run."""
    from jetscale.launch.jobs import job_of
    from jetscale.launch.probe import probe_device
    from jetscale.launch.sharing import joblib_runs

    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, list(overrides))
    n_jobs = joblib_runs(-1, probe_device(job_of(config, overrides).settings.device))
    if n_jobs != -1:
        log.info("%d runs at a time share the GPU; hydra.launcher.n_jobs=N makes it N", n_jobs)
    return n_jobs


def passing_stops_on(launch: Launch) -> Launch:
    """Wrap the launch of joblib's launcher so that a request to stop reaches its workers.

    Parameters
    ----------
    launch : `JoblibLauncher.launch`

    Returns
    -------
    A launch with the same arguments and results. It raises `Preempted` where this process was asked to stop,
    once its workers have stopped.
    """
    from jetscale.training.preemption import Preempted, hear

    def launching(overrides: Sequence[Sequence[str]], first: int) -> Sequence[Any]:
        asked: list[int] = []

        def pass_on(number: int, _: object) -> None:
            if number == signal.SIGINT and number in asked:
                for worker in multiprocessing.active_children():
                    worker.kill()
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            asked.append(number)
            log.warning("asked to stop; the workers write their checkpoints (ctrl-C again: at once)")
            for worker in multiprocessing.active_children():
                worker.terminate()

        os.environ[DRIVER] = str(os.getpid())
        before = hear(pass_on)
        results: Sequence[Any] = ()
        try:
            results = launch(overrides, first)
        except Exception:  # a worker that was not yet at a run has simply ended
            if not asked:
                raise
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)
        if asked or any(isinstance(result._return_value, RunStopped) for result in results):
            number = int(asked[0] if asked else signal.SIGTERM)
            raise Preempted("the sweep was asked to stop; the same command goes on with it", number)
        return results

    return launching


@contextmanager
def obeying_the_driver() -> Iterator[None]:
    """Around a run in a worker of joblib: stop when the driver asks for it, and end when the driver ends.

    In any other process it does nothing.

    Raises
    ------
    RunStopped
        This worker was asked to stop, now or in an earlier run.
    """
    if not _in_worker():
        yield
        return
    from jetscale.training.preemption import EXIT_STATUS, Preempted

    global _asked, _running
    progress.without_bars()  # those of several workers would write over each other
    _watch_driver()
    if _asked:
        raise RunStopped("not started: asked to stop")
    _running = True
    try:
        yield
    except Preempted as stop:
        _asked = True
        raise RunStopped(str(stop)) from None
    finally:
        _running = False
        if _driver_gone.is_set():
            logging.shutdown()
            os._exit(EXIT_STATUS)


def _in_worker() -> bool:
    """Return True in a worker of joblib, whose start method has a name that Python's have not."""
    return multiprocessing.get_start_method(allow_none=True) == "loky"


def _watch_driver() -> None:
    from jetscale.training.preemption import hear

    driver = os.environ.get(DRIVER)
    if driver is None or any(thread.name == "parent" for thread in threading.enumerate()):
        return
    hear(_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches the driver too, which passes it on
    if os.getppid() != int(driver):
        os._exit(1)  # it ended while this process was starting
    when_gone(int(driver), _stop_without_driver)


def _stop(number: int, _: object) -> None:
    """Handler of signals while nothing trains: leave the current run, and begin no other."""
    from jetscale.training.preemption import EXIT_STATUS, Preempted

    global _asked
    _asked = True
    if _running:
        raise Preempted("asked to stop", number)
    if _driver_gone.is_set():
        os._exit(EXIT_STATUS)


def _stop_without_driver() -> None:
    _driver_gone.set()
    with suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)  # noted while a run trains, else `_stop`
    time.sleep(GRACE_SECONDS)
    os._exit(1)
