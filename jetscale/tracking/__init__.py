"""What a run writes: metrics, test-loss blocks, done marker, W&B."""

from __future__ import annotations
