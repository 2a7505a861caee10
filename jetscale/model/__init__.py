"""The set transformer, its packed attention, its size and cost."""

from __future__ import annotations
