"""How a sweep is planned, started and carried through: plan, rounds, packs of runs, Slurm."""

from __future__ import annotations
