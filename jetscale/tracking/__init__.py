"""A run in W&B, and the dashboard of a project there."""

from __future__ import annotations
