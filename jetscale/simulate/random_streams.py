"""Every random stream of the simulator is a pure function of what it is for."""

from __future__ import annotations

import hashlib
import json

import numpy as np

PYTHIA_SEEDS = 900_000_000
"""Pythia takes seeds 1 to 900,000,000."""


def sequence(seed: int, *purpose: str | int) -> np.random.SeedSequence:
    """Seed material for `purpose`, e.g. ``("jetclass", "HToBB", 0, 3, "detector")``."""
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest[:16], "big"))


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """NumPy generator for `purpose`."""
    return np.random.Generator(np.random.PCG64(sequence(seed, *purpose)))


def pythia_seed(seed: int, *purpose: str | int) -> int:
    """A Pythia seed for `purpose`."""
    return 1 + int(sequence(seed, *purpose).generate_state(1, np.uint64)[0] % PYTHIA_SEEDS)
