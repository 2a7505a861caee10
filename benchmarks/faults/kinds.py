"""All kinds of files, in the order of the table."""

from __future__ import annotations

from benchmarks.faults import outputs, runs, simulated, stores, sweeps

FILES = (*stores.KINDS, *simulated.KINDS, *runs.KINDS, *sweeps.KINDS, *outputs.KINDS)
