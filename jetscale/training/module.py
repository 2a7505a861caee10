"""The LightningModule of this project: a network that learns jet classes, for any `lightning.Trainer`.

Our own runs train `jetscale.training.lean_module.LeanClassifier`, the same steps without Lightning's
bookkeeping; docs/training.md says what that leaves out and what it saves.

Legend: B jets, T constituents in the batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from jetscale.jets.batch import JetBatch
from jetscale.model.network import Network
from jetscale.training.jet_metrics import JetMetrics
from jetscale.training.learning_rates import learning_rate, rate_at
from jetscale.training.phase_settings import PhaseSettings


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names step, jets and the last good checkpoint."""


class Prediction(NamedTuple):
    """What `lightning.Trainer.predict` gives for one batch.

    Attributes
    ----------
    probabilities_BK : (B, K) float32, each row adds up to 1
    labels_B : (B,) int64, the class index of each jet
    positions_B : (B,) int64, the position of each jet in its split, which identifies the jet
    """

    probabilities_BK: Tensor
    labels_B: Tensor
    positions_B: Tensor


class JetClassifier(L.LightningModule):
    """Trains, validates, tests and predicts in any `lightning.Trainer`.

    Logged: ``train_loss`` after every step; ``val_loss``, ``val_accuracy``, ``val_auc`` and
    ``val_rejection_CLASS`` after a validation; the same with ``test_`` after a test (see `JetMetrics`).

    Parameters
    ----------
    model : the network
    phase : hyper-parameters; `phase.steps` is where a cosine schedule ends
    class_names : names of the K classes in the order of the network's output (`JetDataModule.class_names`)
    """

    def __init__(self, model: Network, phase: PhaseSettings, class_names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.n_params = model.count_parameters().total
        self.phase = phase
        self.peak_rate = learning_rate(phase.lr, model.dim)
        self.class_names = tuple(class_names)

    def rate(self, step: int) -> float:
        """Learning rate of step number `step`, counted from 0."""
        return rate_at(step, self.peak_rate, self.phase.warmup, self.phase.steps, self.phase.schedule)

    def forward(self, batch: JetBatch) -> Tensor:
        """Logits, (B, K)."""
        logits_BK: Tensor = self.model(batch)
        return logits_BK

    def loss(self, batch: JetBatch) -> Tensor:
        """Mean cross-entropy of the batch in nats, a scalar that gradients flow back from."""
        return F.cross_entropy(self(batch).float(), batch.labels_B)

    def training_step(self, batch: JetBatch, batch_idx: int) -> Tensor | None:
        """The loss that Lightning takes the gradient of."""
        loss = self.loss(batch)
        self.log("train_loss", loss, batch_size=batch.n_jets, prog_bar=True)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to the trainer's ``gradient_clip_val`` where it is given, else to `phase.clip`."""
        limit = self.phase.clip if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, limit, gradient_clip_algorithm or "norm")

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, stepped after every optimiser step."""
        optimizer = self.adamw(self.rate(0))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": RateSchedule(optimizer, self.rate), "interval": "step"},
        }

    def adamw(self, rate: float) -> torch.optim.AdamW:
        """The optimiser of all weights, with learning rate `rate`."""
        return torch.optim.AdamW(
            self.model.parameters(),
            lr=rate,
            betas=(self.phase.beta1, self.phase.beta2),
            weight_decay=self.phase.weight_decay,
            fused=True,
        )

    def on_validation_epoch_start(self) -> None:
        """Begin to collect what the metrics need."""
        self._metrics = JetMetrics(self.class_names).to(self.device)

    def validation_step(self, batch: JetBatch, batch_idx: int) -> None:
        """Add one batch to the validation loss and metrics."""
        self._evaluation_step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation."""
        self._log_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Begin to collect what the metrics need."""
        self._metrics = JetMetrics(self.class_names).to(self.device)

    def test_step(self, batch: JetBatch, batch_idx: int) -> None:
        """Add one batch to the test loss and metrics."""
        self._evaluation_step(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test."""
        self._log_metrics("test")

    def predict_step(self, batch: JetBatch, batch_idx: int) -> Prediction:
        """Class probabilities of one batch, with what identifies its jets."""
        return Prediction(self(batch).float().softmax(dim=1), batch.labels_B, batch.positions_B)

    def _evaluation_step(self, batch: JetBatch, split: str) -> None:
        logits_BK = self(batch).float()
        loss = F.cross_entropy(logits_BK, batch.labels_B)
        self.log(f"{split}_loss", loss, batch_size=batch.n_jets, sync_dist=True)
        self._metrics.update(logits_BK.softmax(dim=1), batch.labels_B)

    def _log_metrics(self, split: str) -> None:
        values = {f"{split}_{name}": value for name, value in self._metrics.compute().items()}
        self.log_dict(values, sync_dist=True)  # equal on all ranks already; Lightning asks for it
        del self._metrics


class RateSchedule(torch.optim.lr_scheduler.LRScheduler):
    """Learning rates that are a function of the step alone.

    Parameters
    ----------
    optimizer : all its groups get the same rate
    rate : rate of each optimiser step, counted from 0
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rate: Callable[[int], float]) -> None:
        self._rate = rate
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of the step to come, one for each group."""
        return [self._rate(self.last_epoch) for _ in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The step; what is fixed by the settings stays out of checkpoints."""
        state: dict[str, Any] = super().state_dict()
        state.pop("_rate")
        return state
