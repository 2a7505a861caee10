"""Where loss tables come from: run directories, tables, W&B's API, offline W&B folders."""

from __future__ import annotations
