"""What the step on a GPU must compute, in plain PyTorch: the model itself, autograd and torch's AdamW."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adamw import adamw

from jetscale.jets.batch import JetBatch
from jetscale.model.kernels.gpu.buffers import (
    AVERAGE,
    CORRECTION1,
    RATE,
    ROOT_CORRECTION2,
    JetBuffers,
    Tables,
    Weights,
)  # fmt: skip
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState
from jetscale.model.transformer import SetTransformer


def batch_of(jets: JetBuffers, n_jets: int, has_pid: bool = True) -> JetBatch:
    """The present batch of a chunk as the eager step gets it, without the empty jets at its end."""
    first = int(jets.first)
    offsets = jets.offsets[first : first + n_jets + 1].long().cpu()
    lengths_B = offsets.diff()
    n_real = int((lengths_B > 0).sum())
    assert bool((lengths_B[:n_real] > 0).all()), "empty jets are at the end"
    rows = slice(int(offsets[0]), int(offsets[-1]))
    lengths_B = lengths_B[:n_real]
    x_TF = (jets.x[rows].float() - jets.centre) * jets.scale
    if jets.deta_column >= 0:
        side_B = jets.side[first : first + n_real].float()
        x_TF[:, jets.deta_column] *= side_B.repeat_interleave(lengths_B.to(side_B.device))
    return JetBatch(
        x_TF=x_TF,
        pid_T=jets.pid[rows].long() if has_pid else None,
        lengths_B=lengths_B,
        labels_B=jets.labels[first : first + n_real].long(),
        positions_B=torch.arange(n_real),
    )


class OracleStep:
    """`DeviceStep` without kernels.

    With a rate that float32 holds exactly it does, bit for bit, what `LeanClassifier` does on a CPU.
    """

    def __init__(
        self,
        model: SetTransformer,
        batch_size: int,
        capacity: int,
        state: FlatState,
        jets: JetBuffers,
        tables: Tables,
        hyper: AdamWSettings,
    ) -> None:
        self._model = copy.deepcopy(model)
        self._batch_size, self._capacity = batch_size, capacity
        self._state, self._jets, self._tables, self._hyper = state, jets, tables, hyper

    def up_to(self, capacity: int) -> OracleStep:
        smaller = copy.copy(self)
        smaller._capacity = capacity
        return smaller

    def train(self) -> None:
        jets, tables, hyper, state = self._jets, self._tables, self._hyper, self._state
        row = tables.rows_K4[int(tables.k)].tolist()
        parameters = _hold(self._model, state.weights)
        batch = batch_of(jets, self._batch_size, self._model.n_pid > 0)
        assert batch.n_constituents + self._batch_size <= self._capacity
        loss = functional.cross_entropy(self._model(batch), batch.labels_B)
        self._model.zero_grad()
        loss.backward()
        if hyper.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, hyper.clip)
        gradients = [parameter.grad for parameter in parameters]
        t = int(state._steps[0]) + int(tables.k) + 1
        assert math.isclose(row[CORRECTION1], 1 - hyper.beta1**t, rel_tol=1e-6)
        assert math.isclose(row[ROOT_CORRECTION2], math.sqrt(1 - hyper.beta2**t), rel_tol=1e-6)
        with torch.no_grad():
            adamw(
                [parameter.detach() for parameter in parameters], gradients,
                self._views(state.exp_avg), self._views(state.exp_avg_sq), [],
                [torch.tensor(float(t - 1)) for _ in parameters], fused=True, amsgrad=False, maximize=False,
                beta1=hyper.beta1, beta2=hyper.beta2, lr=row[RATE], weight_decay=hyper.weight_decay,
                eps=hyper.eps,
            )  # fmt: skip
            if state.average is not None:
                ours = self._views(state.weights.params)
                torch._foreach_lerp_(self._views(state.average), ours, row[AVERAGE])
        tables.losses[int(tables.k)] = loss.detach()
        tables.k.add_(1)
        jets.first.add_(self._batch_size)

    def _views(self, flat: Tensor) -> list[Tensor]:
        return [self._state._view(flat, name) for name, _ in self._model.named_parameters()]


class OracleEvaluation:
    """`DeviceEvaluation` without kernels."""

    def __init__(
        self, model: SetTransformer, batch_size: int, capacity: int, weights: Weights, jets: JetBuffers,
        losses_J: Tensor, correct_J: Tensor,
    ) -> None:  # fmt: skip
        self._model = copy.deepcopy(model).eval()
        self._batch_size, self._capacity = batch_size, capacity
        self._weights, self._jets = weights, jets
        self._losses_J, self._correct_J = losses_J, correct_J

    def up_to(self, capacity: int) -> OracleEvaluation:
        smaller = copy.copy(self)
        smaller._capacity = capacity
        return smaller

    @torch.no_grad()
    def evaluate(self) -> None:
        first = int(self._jets.first)
        batch = batch_of(self._jets, self._batch_size, self._model.n_pid > 0)
        assert batch.n_constituents + self._batch_size <= self._capacity
        _hold(self._model, self._weights)
        logits_BK = self._model(batch)
        rows = slice(first, first + batch.n_jets)
        self._losses_J[rows] = functional.cross_entropy(logits_BK, batch.labels_B, reduction="none")
        self._correct_J[rows] = (logits_BK.argmax(dim=1) == batch.labels_B).to(torch.uint8)
        self._jets.first.add_(self._batch_size)


def _hold(model: SetTransformer, weights: Weights) -> list[Tensor]:
    """Make a model's parameters views of flat weights."""
    for name, parameter in model.named_parameters():
        parameter.data = weights.single(name)
    return list(model.parameters())
