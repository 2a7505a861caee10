"""Random streams of the simulator: each is a pure function of the seed and of its purpose."""

from __future__ import annotations

import hashlib
import json

import numpy as np

PYTHIA_SEEDS = 900_000_000
"""Pythia takes seeds 1 to 900,000,000."""


def sequence(seed: int, *purpose: str | int) -> np.random.SeedSequence:
    """Seed material for a purpose.

    Parameters
    ----------
    seed : of the simulation
    purpose : e.g. ``"jetclass", "HToBB", 0, 3, "detector"``
    """
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest[:16], "big"))


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """NumPy generator for a purpose.

    Parameters
    ----------
    seed : of the simulation
    purpose : as for `sequence`
    """
    return np.random.Generator(np.random.PCG64(sequence(seed, *purpose)))


def pythia_seed(seed: int, *purpose: str | int) -> int:
    """Seed of Pythia for a purpose, from 1 to 900,000,000.

    Parameters
    ----------
    seed : of the simulation
    purpose : as for `sequence`
    """
    return 1 + int(sequence(seed, *purpose).generate_state(1, np.uint64)[0] % PYTHIA_SEEDS)
