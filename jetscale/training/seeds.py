"""One function from (run seed, purpose) to a generator's seed."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose of one run seed; different purposes are independent, seed 0 is a seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
