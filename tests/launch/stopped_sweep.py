"""A sweep of four runs, two at a time in joblib's workers, that only end when they are asked to."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from joblib import Parallel, delayed

from jetscale.launch.joblib_workers import obeying_the_driver, passing_stops_on
from jetscale.training.preemption import NOTICE, Preempted


def train(number: int) -> SimpleNamespace:
    """What Hydra makes of a run: its exception is a result."""
    try:
        with obeying_the_driver(), NOTICE.restoring_handlers():
            NOTICE.listen()
            Path(f"{number}.pid").write_text(str(os.getpid()))
            while not NOTICE.given:
                time.sleep(0.01)
            Path(f"{number}.checkpoint").touch()
            raise Preempted("stopped", NOTICE.taken())
    except Exception as error:
        return SimpleNamespace(_return_value=error)


def launch(overrides: Sequence[Sequence[str]], first: int) -> Sequence[SimpleNamespace]:
    results: list[SimpleNamespace] = Parallel(n_jobs=2)(
        delayed(train)(first + number) for number, _ in enumerate(overrides)
    )
    return results


if __name__ == "__main__":
    passing_stops_on(launch)([[]] * 4, 0)
