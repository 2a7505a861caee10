"""Compile every kernel of a step and of an evaluation for a card that is not there.

    env -u TRITON_INTERPRET python -W ignore -m tests.model.gpu.compiled 8 128 512    # widths, on an H100
    env -u TRITON_INTERPRET python -W ignore -m tests.model.gpu.compiled 8 sm80:128   # the second on an A100
    env -u TRITON_INTERPRET python -W ignore -m tests.model.gpu.compiled 16x1024      # heads of 1,024 classes

Triton's compiler and its assembler need no GPU, so this finds what the interpreter forgives: types that do
not fit, names that Triton keeps for itself, tiles too large for a multiprocessor, registers that spill. It
measures nothing. Prints one JSON object a kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from jetscale.model.ema import WeightAverage
from jetscale.model.kernels.gpu.buffers import JetBuffers, Layout, Tables
from jetscale.model.kernels.gpu.head import head_forward, head_parts, head_step
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState
from jetscale.model.kernels.gpu.step import WIDEST, DeviceEvaluation, DeviceStep
from jetscale.model.transformer import SetTransformer

B = 128
CAPACITY = 6_144


class Card:
    """What Triton asks its driver before it compiles.

    Parameters
    ----------
    capability : compute capability without its dot, 90 for an H100 and 80 for an A100
    """

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def steps_of(dim: int) -> Iterator[Callable[[], None]]:
    """A training step and an evaluation at that width, in bfloat16, on memory of the CPU."""
    model = SetTransformer(dim, n_classes=10, depth=3)
    jets = JetBuffers.allocate(1_000, B, torch.zeros(8), torch.ones(8), "cpu", 0)
    state, tables = FlatState(model, WeightAverage(model)), Tables.allocate(4, "cpu")
    yield DeviceStep(model, B, CAPACITY, state, jets, tables, AdamWSettings(clip=1.0)).train
    of_jets = [torch.zeros(len(jets.labels), dtype=dtype) for dtype in (torch.float32, torch.uint8)]
    yield DeviceEvaluation(model, B, CAPACITY, state.evaluated, jets, *of_jets).evaluate


def heads_of(dim: int, n_classes: int) -> Iterator[Callable[[], None]]:
    """The head of a training step and of an evaluation, as `steps_of` has it but for the classes."""
    model = SetTransformer(dim, n_classes, depth=1)
    jets = JetBuffers.allocate(1_000, B, torch.zeros(8), torch.ones(8), "cpu", 0)
    weights, gradients = FlatState(model).weights, Layout.of(model, head_parts(B)).gradients("cpu")
    x_BD, d_x_BD = torch.zeros(B, dim), torch.zeros(B, dim)
    branch_BD, d_branch_BD = x_BD.bfloat16(), x_BD.bfloat16()
    losses_B, correct_B = torch.zeros(B), torch.zeros(B, dtype=torch.uint8)
    inputs, k = (
        (x_BD, branch_BD if dim > WIDEST else None, weights, jets, B),
        torch.zeros(1, dtype=torch.int32),
    )
    yield lambda: head_step(*inputs, gradients, losses_B, correct_B, d_x_BD, d_branch_BD, k)
    yield lambda: head_forward(*inputs, losses_B, correct_B)


def compiled_kernels(run: Callable[[], None]) -> list[dict[str, Any]]:
    """Compile what `run` would launch: name, grid, warps, registers and stack of a thread, shared memory."""
    found: dict[str, dict[str, Any]] = {}
    compile_or_run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = compile_or_run(self, *args, grid=grid, warmup=True, **kwargs)
        if kernel.hash not in found:
            registers, stack = _occupied(kernel.asm["cubin"])
            found[kernel.hash] = {
                "kernel": self.fn.__name__,
                "grid": list(grid),
                "warps": kernel.metadata.num_warps,
                "registers": registers,
                "stack": stack,
                "shared": kernel.metadata.shared,
            }

    JITFunction.run = compile_only
    try:
        run()
    finally:
        JITFunction.run = compile_or_run
    return list(found.values())


def _occupied(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack: what did not fit in them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found is not None, report
    return int(found[1]), int(found[2])


def main() -> None:
    for word in sys.argv[1:]:
        card, _, size = word.rpartition(":")
        width, _, classes = size.partition("x")
        capability, dim = int(card.removeprefix("sm") or 90), int(width)
        driver.set_active(Card(capability))
        for run in heads_of(dim, int(classes)) if classes else steps_of(dim):
            for kernel in compiled_kernels(run):
                print(json.dumps({"capability": capability, "dim": dim, **kernel}), flush=True)


if __name__ == "__main__":
    main()
