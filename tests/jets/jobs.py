"""Jobs for worker processes, in a module of their own: a worker that unpickles them imports nothing else."""

from __future__ import annotations

import os
import time


def process_id(_: int) -> int:
    return os.getpid()


def process_id_slowly(_: int) -> int:
    time.sleep(0.3)
    return os.getpid()
