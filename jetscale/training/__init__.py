"""LightningModules for pretraining and fine-tuning, callbacks, checkpoint and resume."""

from __future__ import annotations
