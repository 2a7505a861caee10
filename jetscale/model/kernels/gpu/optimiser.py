"""Weights, AdamW's state and the average in flat memory on the device, and their update in one launch.

A step of a narrow model is a few dozen short kernels; PyTorch's optimiser alone would be as many again. Here
every parameter lies in one flat float32 tensor at a multiple of `buffers.TILE`, so that a program of the
update works on TILE values of one parameter, whatever its shape. What people see stays as it is: the model's
parameters, AdamW's state and `WeightAverage` are views of the flat memory, and their state dicts are those of
the eager step.

Legend: N padded parameters, P partial sums of a gradient, B jets of a batch.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from jetscale.model.ema import WeightAverage
from jetscale.model.kernels.gpu.buffers import TILE, Gradients, Layout, Tables, Weights

_ROWS = 8  # partial sums that a program of the update reads at once
_MOST_PARTS = 64  # that the update adds up itself
_FOLD_ROWS, _FOLD_COLUMNS = 64, 64
_NORM_BLOCK = 1_024
JETS_AT_ONCE = 1_024  # losses of a batch that a program reads at once


@dataclass(frozen=True)
class AdamWSettings:
    """What AdamW needs beside the rate.

    Attributes
    ----------
    beta1, beta2, weight_decay, eps : as in `torch.optim.AdamW`
    clip : largest norm of the whole gradient, None for no limit
    """

    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    eps: float = 1e-8
    clip: float | None = None


class FlatState:
    """Parameters, AdamW's state and the average of a model in flat memory.

    Make it once the model is on its device: moving a model gives its parameters other memory.

    Parameters
    ----------
    model : its parameters become views of ``weights.params``
    average : its averages become views of `average`, if given
    half_dtype : precision of the matrix products; float32 keeps no copy for them

    Attributes
    ----------
    layout : where each parameter lies
    weights : the weights that are trained
    evaluated : the weights that an evaluation reads, filled by `evaluate_raw` and `evaluate_average`
    exp_avg, exp_avg_sq : (N,) float32, AdamW's moments
    average : (N,) float32, or None

    Raises
    ------
    ValueError
        A parameter is frozen or not float32: the update would change it, or misread it.
    """

    def __init__(
        self,
        model: nn.Module,
        average: WeightAverage | None = None,
        half_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self._parameters = dict(model.named_parameters())
        for name, parameter in self._parameters.items():
            if not parameter.requires_grad or parameter.dtype != torch.float32:
                raise ValueError(
                    f"parameter {name!r} is frozen or {parameter.dtype}, must be trained float32"
                )
        self.layout = Layout.of(model)
        device = next(iter(self._parameters.values())).device
        self.weights = self._new_weights(half_dtype, device)
        self.evaluated = self._new_weights(half_dtype, device)
        self.exp_avg = torch.zeros(self.layout.length, device=device)
        self.exp_avg_sq = torch.zeros(self.layout.length, device=device)
        self._steps = torch.zeros(len(self._parameters), device=device)
        for name, parameter in self._parameters.items():
            view = self.weights.single(name)
            view.copy_(parameter.detach())
            parameter.data = view
        self.refresh_half()
        self._weight_average = average
        self.average: Tensor | None = None
        if average is not None:
            self.average = torch.zeros(self.layout.length, device=device)
            average.move_to({name: self._view(self.average, name) for name in self._parameters})

    def _new_weights(self, half_dtype: torch.dtype, device: torch.device) -> Weights:
        params = torch.zeros(self.layout.length, device=device)
        half = params if half_dtype == torch.float32 else params.to(half_dtype)
        return Weights(self.layout, params, half)

    def _view(self, flat: Tensor, name: str) -> Tensor:
        slot = self.layout.slots[name]
        return flat[slot.offset : slot.offset + slot.size].view(slot.shape)

    def refresh_half(self) -> None:
        """Make the copy for the products anew: after the model has loaded other weights."""
        _fill(self.weights, self.weights.params)

    def evaluate_raw(self) -> None:
        """Let evaluations read the weights as they are now."""
        _fill(self.evaluated, self.weights.params)

    def evaluate_average(self) -> None:
        """Let evaluations read the average as it is now."""
        assert self.average is not None
        _fill(self.evaluated, self.average)

    def tensors(self) -> list[Tensor]:
        """Every tensor that `update` changes here: what a warm-up must put back."""
        weights = self.weights
        changed = [weights.params, self.exp_avg, self.exp_avg_sq]
        changed += [] if weights.half is weights.params else [weights.half]
        return changed if self.average is None else [*changed, self.average]

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the optimiser's state views of the flat memory, with the values that it holds.

        Call it for a new optimiser, and after each ``load_state_dict``, which puts other tensors in place.

        Parameters
        ----------
        optimizer : AdamW of this model's parameters
        """
        for index, (name, parameter) in enumerate(self._parameters.items()):
            views = {
                "step": self._steps[index],
                "exp_avg": self._view(self.exp_avg, name),
                "exp_avg_sq": self._view(self.exp_avg_sq, name),
            }
            held = optimizer.state.get(parameter, {})
            for key, view in views.items():
                if key in held:
                    view.copy_(held[key])
                else:
                    view.zero_()
            optimizer.state[parameter] = views

    def advance(self, steps: int) -> None:
        """Count steps that the device has done in AdamW's state and in the average."""
        self._steps += steps
        if self._weight_average is not None:
            self._weight_average.step += steps


def _fill(weights: Weights, params: Tensor) -> None:
    if params is not weights.params:
        weights.params.copy_(params)
    if weights.half is not weights.params:
        weights.half.copy_(params)


def copied_to_host(tree: Any) -> Any:
    """A state dict with copies of its tensors on the CPU, which share no memory.

    `torch.save` writes the whole memory behind a view: here all parameters, padding included.

    Parameters
    ----------
    tree : tensors in dicts, lists and tuples; all else is returned as it is
    """
    if isinstance(tree, Tensor):
        return tree.to("cpu", copy=True)
    if isinstance(tree, Mapping):
        return {key: copied_to_host(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(copied_to_host(value) for value in tree)
    return tree


class Update:
    """One step of AdamW and of the average, and the end of the training step, on static memory.

    One launch, two more where the gradient is clipped. Where a parameter has many partial sums, as the norms
    of wide models have, another launch adds all up first: in the update itself, the few programs of those
    parameters would work on while the others are done, and all would need registers for the sums, so that
    fewer run at the same time.

    Parameters
    ----------
    state, gradients, settings : what is updated, and from what
    tables : of the chunk. `k` counts the steps that have begun (the head's kernel adds one), so a step
        is row k - 1; it writes ``losses[k - 1]``
    first : (1,) int32, first jet of the batch; moves on by the jets of the batch
    loss_B : (B,) float32, loss of each jet of the batch

    Source: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2, in the order of operations of PyTorch's
    fused AdamW; the average as in `jetscale.model.ema`.
    """

    def __init__(
        self,
        state: FlatState,
        gradients: Gradients,
        settings: AdamWSettings,
        tables: Tables,
        first: Tensor,
        loss_B: Tensor,
    ) -> None:
        self._state, self._gradients, self._settings = state, gradients, settings
        self._tables, self._first, self._loss_B = tables, first, loss_B
        slots, device = gradients.layout.slots.values(), gradients.flat.device
        parts = {slot.name: slot.parts for slot in slots}
        self._folds = None
        if max(parts.values()) > _MOST_PARTS:
            folds = [
                [slot.gradient + start, slot.parts, slot.size, min(_FOLD_COLUMNS, slot.size - start)]
                for slot in slots
                if slot.parts > 1
                for start in range(0, slot.size, _FOLD_COLUMNS)
            ]
            self._folds = torch.tensor(folds, dtype=torch.int64, device=device)
            parts = dict.fromkeys(parts, 1)
        tiles = []
        for slot in slots:
            count = parts[slot.name]
            for start in range(0, slot.size, TILE):
                length = min(TILE, slot.size - start)
                tiles.append([slot.offset + start, slot.gradient + start, count, slot.size, length])
        self._tiles = torch.tensor(tiles, dtype=torch.int64, device=device)
        self._rows = min(_ROWS, triton.next_power_of_2(max(parts.values())))
        self._squares = torch.zeros(len(tiles), device=device)
        self._coefficient = torch.ones(1, device=device)

    def __call__(self) -> None:
        """Enqueue the update."""
        state, settings, n_jets = self._state, self._settings, len(self._loss_B)
        flat, tiles, weights = self._gradients.flat, self._tiles, self._state.weights
        if self._folds is not None:
            _fold_kernel[(len(self._folds),)](
                flat, self._folds, ROWS=_FOLD_ROWS, COLUMNS=_FOLD_COLUMNS, num_warps=4
            )
        if settings.clip is not None:
            grid = (len(tiles),)
            _squares_kernel[grid](flat, tiles, self._squares, ROWS=self._rows, TILE=TILE, num_warps=8)
            _coefficient_kernel[(1,)](
                self._squares, self._coefficient, len(tiles), float(settings.clip), BLOCK=_NORM_BLOCK
            )
        _update_kernel[(len(tiles),)](
            weights.params, state.exp_avg, state.exp_avg_sq, state.average, weights.half,
            flat, tiles, self._coefficient,
            self._tables.rows_K4, self._tables.losses, self._tables.k, self._first, self._loss_B, n_jets,
            # 1 - beta from double precision: 1 - 0.999 in single is off by 1e-5 of itself
            *map(float, (settings.beta1, 1 - settings.beta1, settings.beta2, 1 - settings.beta2)),
            float(settings.weight_decay), float(settings.eps),
            HALF=weights.half is not weights.params,
            AVERAGE=state.average is not None,
            CLIP=settings.clip is not None,
            ROWS=self._rows,
            TILE=TILE,
            JETS=min(JETS_AT_ONCE, triton.next_power_of_2(n_jets)),
            num_warps=8,
        )  # fmt: skip


def table_row(
    rate: float, step: int, settings: AdamWSettings, average_weight: float
) -> tuple[float, float, float, float]:
    """One row of `Tables.rows_K4`, in double precision.

    Parameters
    ----------
    rate : learning rate of the step
    step : t, the number of the step counted from 1
    settings : of AdamW
    average_weight : 1 / window of the average after the step; 0 without one
    """
    return rate, 1 - settings.beta1**step, (1 - settings.beta2**step) ** 0.5, average_weight


@triton.jit
def _fold_kernel(GRADIENTS, FOLDS, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Put the sum of all partial sums of some numbers of a parameter into the first, always in one order."""
    fold = tl.program_id(0)
    start = tl.load(FOLDS + 4 * fold)
    count = tl.load(FOLDS + 4 * fold + 1)
    stride = tl.load(FOLDS + 4 * fold + 2)
    length = tl.load(FOLDS + 4 * fold + 3)
    i, row = tl.arange(0, COLUMNS), tl.arange(0, ROWS)
    total = tl.zeros([COLUMNS], tl.float32)
    for low in range(0, count, ROWS):
        mask = ((low + row) < count)[:, None] & (i < length)[None, :]
        block = tl.load(GRADIENTS + start + (low + row)[:, None] * stride + i[None, :], mask=mask, other=0.0)
        total += tl.sum(block, 0)
    tl.store(GRADIENTS + start + i, total, mask=i < length)


@triton.jit
def _summed_tile(GRADIENTS, TILES, tile, ROWS: tl.constexpr, TILE: tl.constexpr):
    """One tile of a gradient: its partial sums, ROWS at a time, always in the same order."""
    start = tl.load(TILES + 5 * tile + 1)
    count = tl.load(TILES + 5 * tile + 2)
    stride = tl.load(TILES + 5 * tile + 3)
    length = tl.load(TILES + 5 * tile + 4)
    i = tl.arange(0, TILE)
    row = tl.arange(0, ROWS)
    total = tl.zeros([TILE], tl.float32)
    for low in range(0, count, ROWS):
        mask = ((low + row) < count)[:, None] & (i < length)[None, :]
        block = tl.load(GRADIENTS + start + (low + row)[:, None] * stride + i[None, :], mask=mask, other=0.0)
        total += tl.sum(block, 0)
    return total


@triton.jit
def _squares_kernel(GRADIENTS, TILES, SQUARES, ROWS: tl.constexpr, TILE: tl.constexpr):
    """Sum of squares of one tile of the gradient."""
    tile = tl.program_id(0)
    gradient = _summed_tile(GRADIENTS, TILES, tile, ROWS, TILE)
    tl.store(SQUARES + tile, tl.sum(gradient * gradient, 0))


@triton.jit
def _coefficient_kernel(SQUARES, COEFFICIENT, n_tiles, limit, BLOCK: tl.constexpr):
    """What the gradient is multiplied by: min(1, limit / (norm + 1e-6)), as `clip_grad_norm_`."""
    i = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for low in range(0, n_tiles, BLOCK):
        total += tl.load(SQUARES + low + i, mask=low + i < n_tiles, other=0.0)
    norm = tl.sqrt_rn(tl.sum(total, 0))
    factor = limit / (norm + 1e-6)
    # a norm that is not a number stays one, as in PyTorch: the loss will tell
    tl.store(COEFFICIENT, tl.where(factor > 1.0, 1.0, factor))


@triton.jit
def _update_kernel(
    PARAMS, EXP_AVG, EXP_AVG_SQ, AVERAGES, WEIGHTS_HALF,
    GRADIENTS, TILES, COEFFICIENT,
    SCHEDULE, LOSSES, STEPS, FIRST, LOSS, n_jets,
    beta1, one_minus_beta1, beta2, one_minus_beta2, decay, eps,
    HALF: tl.constexpr, AVERAGE: tl.constexpr, CLIP: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, JETS: tl.constexpr,
):  # fmt: skip
    """See `Update`; one program a tile."""
    tile = tl.program_id(0)
    step = tl.load(STEPS) - 1
    rate = tl.load(SCHEDULE + 4 * step)
    bias1 = tl.load(SCHEDULE + 4 * step + 1)
    sqrt_bias2 = tl.load(SCHEDULE + 4 * step + 2)
    g = _summed_tile(GRADIENTS, TILES, tile, ROWS, TILE)
    if CLIP:
        g *= tl.load(COEFFICIENT)
    # beyond the parameter's end all is zero and stays so
    i = tl.multiple_of(tl.load(TILES + 5 * tile), TILE) + tl.arange(0, TILE)
    p = tl.load(PARAMS + i)
    p -= rate * decay * p
    m = beta1 * tl.load(EXP_AVG + i) + one_minus_beta1 * g
    v = beta2 * tl.load(EXP_AVG_SQ + i) + one_minus_beta2 * g * g
    p -= tl.div_rn(rate, bias1) * tl.div_rn(m, tl.div_rn(tl.sqrt_rn(v), sqrt_bias2) + eps)
    tl.store(PARAMS + i, p)
    tl.store(EXP_AVG + i, m)
    tl.store(EXP_AVG_SQ + i, v)
    if HALF:
        tl.store(WEIGHTS_HALF + i, p.to(WEIGHTS_HALF.dtype.element_ty))
    if AVERAGE:
        weight = tl.load(SCHEDULE + 4 * step + 3)
        a = tl.load(AVERAGES + i)
        # the two forms of torch.lerp: exactly the weights at weight 1
        a = tl.where(weight < 0.5, a + weight * (p - a), p - (p - a) * (1.0 - weight))
        tl.store(AVERAGES + i, a)
    if tile == 0:
        # No other program of this launch reads FIRST or writes LOSSES.
        j = tl.arange(0, JETS)
        total = tl.zeros([JETS], tl.float32)
        for low in range(0, n_jets, JETS):
            total += tl.load(LOSS + low + j, mask=low + j < n_jets, other=0.0)
        tl.store(LOSSES + step, tl.sum(total, 0) / n_jets)
        tl.store(FIRST, tl.load(FIRST) + n_jets)
