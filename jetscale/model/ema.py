"""An average of the weights over the recent steps, to evaluate beside the raw ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average whose window grows with the run.

    At step t the window is `fraction` t, at least 1 and at most `max_window` steps, and the average moves by
    1 / window of its distance to the weights: at the start it is the weights themselves, later it forgets
    what is older than a fixed share of the run, so one setting serves runs of any length.

    Not `torch.optim.swa_utils.AveragedModel`: that is a second module, which would count as parameters of the
    run, and evaluating it means moving the data path and hooks over. Here the weights change places with
    their average for as long as an evaluation lasts, without a copy.

    Parameters
    ----------
    model : its trainable parameters are averaged, starting from their present values
    fraction : window as a share of the steps so far, in (0, 1]
    max_window : longest window, steps; None for no limit

    Raises
    ------
    ValueError
        when `fraction` or `max_window` is out of range.
    """

    def __init__(self, model: nn.Module, fraction: float = 0.1, max_window: int | None = None) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"the EMA window must be a share of the steps in (0, 1], not {fraction}")
        if max_window is not None and max_window < 1:
            raise ValueError(f"the longest EMA window must be at least one step, not {max_window}")
        self.fraction = fraction
        self.max_window = max_window
        self.step = 0
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._parameters: list[Tensor] = [p for _, p in named]
        self._averages = [p.detach().clone() for p in self._parameters]

    @property
    def window(self) -> float:
        """Steps that the average looks back at present."""
        return self.window_at(self.step)

    def window_at(self, step: int) -> float:
        """Steps that the average looks back after `step` updates."""
        longest = float("inf") if self.max_window is None else float(self.max_window)
        return max(1.0, min(self.fraction * step, longest))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more optimiser step."""
        self.step += 1
        torch._foreach_lerp_(self._averages, self._parameters, 1.0 / self.window)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model hold the averaged weights inside a `with`, and its own again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Step and averages: with the model's own weights, all that an exact resume needs."""
        return {"step": self.step, "averages": dict(zip(self._names, self._averages, strict=True))}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of another `WeightAverage` of the same model.

        Raises
        ------
        ValueError
            when its weights have other names or shapes.
        """
        averages: dict[str, Tensor] = state["averages"]
        own = {name: a.shape for name, a in zip(self._names, self._averages, strict=True)}
        theirs = {name: a.shape for name, a in averages.items()}
        if own != theirs:
            differing = sorted(name for name in own | theirs if own.get(name) != theirs.get(name))
            raise ValueError(f"this average belongs to another model: {', '.join(differing)} differ")
        self.step = int(state["step"])
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(averages[name])

    @torch.no_grad()
    def move_to(self, places: Mapping[str, Tensor]) -> None:
        """Keep the averages in other memory from now on, with their present values.

        Parameters
        ----------
        places : a tensor of the parameter's shape by name
        """
        for name, average in zip(self._names, self._averages, strict=True):
            places[name].copy_(average)
        self._averages = [places[name] for name in self._names]

    def _swap(self) -> None:
        for index, parameter in enumerate(self._parameters):
            parameter.data, self._averages[index] = self._averages[index], parameter.data
