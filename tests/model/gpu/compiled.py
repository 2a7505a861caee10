"""Compile every kernel of a step for a card that is not there, and say what it would occupy.

    python -m tests.model.gpu.compiled 8 128          # widths; TRITON_INTERPRET unset

Triton's compiler and its assembler need no GPU, so this finds what the interpreter forgives: types that do
not fit, tiles too large for a multiprocessor, registers spilled to memory. It measures nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

H100 = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.int8: "*i8",
}


@dataclass(frozen=True)
class Compiled:
    """What one kernel needs: registers a thread, bytes spilled a thread, bytes of shared memory."""

    name: str
    registers: int
    spilled: int
    shared: int
    warps: int


def compile_launch(kernel: JITFunction[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Compiled:
    """Compile a kernel as a launch with these arguments would."""
    options = {key: kwargs[key] for key in ("num_warps", "num_stages") if key in kwargs}
    values = dict(zip(kernel.arg_names, args, strict=False)) | {
        key: value for key, value in kwargs.items() if key not in options
    }
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            if value.data_ptr() % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    done = triton.compile(source, target=H100, options=options)
    return Compiled(
        kernel.fn.__name__, *_occupied(done.asm["cubin"]), done.metadata.shared, done.metadata.num_warps
    )


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


def launches_of(step: Any) -> list[tuple[JITFunction[Any], tuple[Any, ...], dict[str, Any]]]:
    """Record the launches that `step` makes, without making them."""
    found: list[tuple[JITFunction[Any], tuple[Any, ...], dict[str, Any]]] = []
    run = JITFunction.run

    def record(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        found.append((self, args, kwargs))

    JITFunction.run = record  # type: ignore[method-assign]
    try:
        step()
    finally:
        JITFunction.run = run  # type: ignore[method-assign]
    return found


def narrow_step(dim: int, n_classes: int = 10) -> Any:
    """One training step of a network of that width, in bfloat16, batch 128."""
    from jetscale.model.kernels.gpu.buffers import JetBuffers, Layout, Tables
    from jetscale.model.kernels.gpu.narrow import Narrow
    from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState, Update
    from jetscale.model.transformer import SetTransformer

    model = SetTransformer(dim, n_classes)
    state = FlatState(model)
    jets = JetBuffers.allocate(6_000, 128, torch.zeros(8), torch.ones(8), "cpu", 127, 0)
    gradients = Layout.of(model, Narrow.parts(model, 128)).gradients("cpu")
    network = Narrow(model, 128, 6_144, jets, torch.bfloat16, gradients)
    tables = Tables.allocate(64, "cpu")
    update = Update(state, gradients, AdamWSettings(clip=1.0), tables, jets.first, network.losses_B)

    def step() -> None:
        network.train(state.weights, tables.k)
        update()

    return step


def main() -> None:
    for dim in map(int, sys.argv[1:]):
        seen = set()
        for launch in launches_of(narrow_step(dim)):
            compiled = compile_launch(*launch)
            if compiled not in seen:
                print(dim, compiled, flush=True)
            seen.add(compiled)


if __name__ == "__main__":
    main()
