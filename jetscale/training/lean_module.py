"""The module of our own runs: the steps of `JetClassifier`, to the last bit, without Lightning's bookkeeping.

Legend: B jets, K classes, S the steps since the last metrics line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from jetscale.jets.batch import JetBatch
from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.evaluation import EvalSet
from jetscale.model.ema import WeightAverage
from jetscale.model.network import Network
from jetscale.training import ranks
from jetscale.training.evaluate import TestLoss, evaluate
from jetscale.training.generators import Generators
from jetscale.training.module import JetClassifier
from jetscale.training.phase_settings import PhaseSettings
from jetscale.training.settings import EmaSettings


class LeanClassifier(JetClassifier):
    """One phase of one of our runs.

    It owns its position and steps its optimiser itself: Lightning's automatic step with a schedule and one
    logged value costs 0.8 ms more, a tenth of a step at width 8. Losses stay on the device in
    `window_S`, one entry for each step since the last metrics line, and are read only when a line is written.

    Parameters
    ----------
    model : the network
    phase : hyper-parameters; `phase.steps` is the last step
    ema : moving average of the weights
    window : steps between metrics lines
    hooks : step the optimiser through Lightning, so that the callbacks' ``on_before_optimizer_step`` is
        called and the trainer's ``global_step`` counts; for users' callbacks

    Attributes
    ----------
    runs_ahead : whether the device may still compute a step when the next ones are given to it, so that
        whoever waits for a loss should give it the next ones first
    """

    runs_ahead = False

    def __init__(
        self,
        model: Network,
        phase: PhaseSettings,
        ema: EmaSettings,
        window: int,
        hooks: bool = False,
    ) -> None:
        super().__init__(model, phase, class_names=())
        self.automatic_optimization = False
        self.ema = ema
        self.average: WeightAverage | None = None
        # this rank's part of the mean; no buffer: DDP would overwrite every rank's with the first's
        self.window_S = torch.zeros(window)
        self.start_step = 0
        self._first_kept = 0  # the first step whose loss may be in `window_S`
        self._hooks = hooks
        self._steps_here = 0  # since `start_step`, where earlier processes ended
        self._constituents_before = 0  # over all ranks, up to the last `count_constituents`
        self._constituents_here = 0  # on this rank, since then
        self._resumed: dict[str, Any] | None = None
        # losses between the last line of an earlier start and `_first_kept`, L of them
        self._earlier_L = torch.zeros(0, dtype=torch.float64)
        self._generators: Generators | None = None  # of a resumed run, until its first step

    @contextmanager
    def feeding(self, data: JetDataModule, device: torch.device) -> Iterator[dict[str, Any]]:
        """What `lightning.Trainer.fit` is to read batches from, for as long as the context lasts.

        Parameters
        ----------
        data : the training jets
        device : where the trainer computes
        """
        yield {"datamodule": data}

    @property
    def step(self) -> int:
        """Optimiser steps done, over all starts of the phase."""
        return self.start_step + self._steps_here

    def training_step(self, batch: JetBatch, batch_idx: int) -> None:
        """One optimiser step down the mean cross-entropy of the batch; the average of the weights follows."""
        loss = self.loss(batch)
        self.window_S[self.step % len(self.window_S)] = loss.detach() / self._world
        self._constituents_here += batch.n_constituents
        optimizer, rate = self._torch_optimizer, self.rate(self.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self._hooks:
            self.optimizers().step()  # type: ignore[union-attr]  # there is one; it calls the hooks
        else:
            self.on_before_optimizer_step(optimizer)
            optimizer.step()
        self._steps_here += 1
        if self.average is not None:
            self.average.update()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, after the callbacks have seen it, as in Lightning's own loop."""
        if self.phase.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.phase.clip)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its rate is set before each step, so there is no scheduler to resume."""
        return self.adamw(self.rate(self.start_step))

    def on_fit_start(self) -> None:
        """Start the average, once the weights are on their device, and give a resumed run its state back."""
        self._world = ranks.world_size()
        self.window_S = self.window_S.to(self.device)
        if self.ema.enabled:
            self.average = WeightAverage(self.model, self.ema.fraction, self.ema.max_window)
        if self._resumed is None:
            return
        self._torch_optimizer.load_state_dict(self._resumed["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(self._resumed["average"])
        self._resumed = None

    def on_train_epoch_start(self) -> None:
        """Give a resumed run its generators back: after all that a start draws, before the first step."""
        if self._generators is not None:
            self._generators.restore(self.device)
            self._generators = None

    def test_losses(self, test: EvalSet, batch_size: int) -> Iterator[tuple[str, TestLoss]]:
        """Losses of the raw weights and then, where there is one, of their average; every rank must call.

        Parameters
        ----------
        test : jets to evaluate on
        batch_size : jets in one forward pass

        Returns
        -------
        Each with its kind of weights, ``raw`` or ``ema``.
        """
        contexts = {"raw": nullcontext()} | ({} if self.average is None else {"ema": self.average.applied()})
        for weights, context in contexts.items():
            batches = test.batches(batch_size, ranks.rank(), ranks.world_size())
            with context:
                result = evaluate(self.model, batches, self.device, str(self.trainer.precision))
            yield weights, result

    def window_losses(self, since: int) -> Callable[[], Tensor]:
        """Losses of the steps after `since`, mean over ranks; every rank must call.

        Returns
        -------
        What waits for the device and gives them, (steps,) float64 on the CPU. Steps that are taken before it
        is called change nothing.
        """
        earlier_L = self._earlier_L if since < self._first_kept else self._earlier_L[:0]
        steps = torch.arange(max(since, self._first_kept), self.step) % len(self.window_S)
        arrived = _on_the_way(self._summed_window())
        return lambda: torch.cat([earlier_L, arrived()[steps].double()])

    def count_constituents(self) -> int:
        """Constituents seen by all ranks so far; every rank must call."""
        seen = self._constituents_here
        if ranks.world_size() > 1:
            seen_in_all = torch.tensor(seen, device=self.device)
            torch.distributed.all_reduce(seen_in_all)
            seen = int(seen_in_all)
        self._constituents_before += seen
        self._constituents_here = 0
        return self._constituents_before

    def _summed_window(self) -> Tensor:
        if ranks.world_size() == 1:
            return self.window_S
        window_S = self.window_S.clone()
        torch.distributed.all_reduce(window_S)
        return window_S

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint must hold, see `resume`; every rank must call."""
        return {
            "arch": self.model.arch,
            "step": self.step,
            "constituents": self.count_constituents(),
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self._torch_optimizer.state_dict(),
            "generators": Generators.now(self.device).everywhere(),
        }

    def resume(self, state: dict[str, Any]) -> int:
        """Go on from a checkpoint's state.

        Parameters
        ----------
        state : of `state`, and ``losses``: those of the steps since the last line of the training loss

        Returns
        -------
        The step of that line.
        """
        self.start_step = state["step"]
        self._constituents_before = state["constituents"]
        self.model.load_state_dict(state["model"])
        self._resumed = state
        self._generators = Generators.of_this_rank(state.get("generators", []))
        losses = state["losses"] if "losses" in state else _losses_of_earlier_version(state)
        line_before = self.start_step - len(losses)
        self._first_kept = max(line_before, self.start_step - self.start_step % len(self.window_S))
        self._earlier_L, kept_S = losses.double().split(
            [self._first_kept - line_before, self.start_step - self._first_kept]
        )
        if ranks.is_first():  # the others add zeros: exact whatever their number
            places_S = torch.arange(self._first_kept, self.start_step) % len(self.window_S)
            self.window_S[places_S] = kept_S.float()
        return line_before

    @property
    def _torch_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer


def _losses_of_earlier_version(state: dict[str, Any]) -> Tensor:
    """Losses since the last line, from a checkpoint that has a whole window of ``log_every`` steps."""
    step, window_S = state["step"], state["window"]
    losses: Tensor = window_S[torch.arange(step - step % len(window_S), step) % len(window_S)]
    return losses


def _on_the_way(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the CPU.

    Returns
    -------
    What waits for the copy, and for nothing that the device was given after it, and returns it.
    """
    on_gpu = tensor.device.type == "cuda"
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
    copy.copy_(tensor, non_blocking=on_gpu)
    if not on_gpu:
        return lambda: copy
    arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # burns no core
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait
