"""A callback: writes the norm of the gradient to a file in the run directory.

    python -m jetscale.train ... --trust toy_lab.callback \
        'callbacks.norms={_target_: toy_lab.callback.GradientNorm, every: 10}'
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.nn.utils import get_total_norm


class GradientNorm(L.Callback):
    """Norm of the gradient before it is clipped, in ``gradient_norm.json`` once the phase has ended.

    Parameters
    ----------
    every : steps between two norms
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.norms: dict[int, float] = {}

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take the norm where it is due; `pl_module.step` counts the steps that are done."""
        if pl_module.step % self.every == 0:
            gradients = [weight.grad for weight in pl_module.model.parameters() if weight.grad is not None]
            self.norms[pl_module.step] = float(get_total_norm(gradients))

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write all norms, on one process of several."""
        if trainer.is_global_zero:
            Path(trainer.default_root_dir, "gradient_norm.json").write_text(json.dumps(self.norms))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a run which was killed goes on with the norms it had."""
        return {"norms": self.norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what a checkpoint kept."""
        self.norms = state_dict["norms"]
