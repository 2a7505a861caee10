from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jetscale.model.kernels import cpu as kernels
from jetscale.model.kernels.cpu import operations_for
from jetscale.model.kernels.cpu.functions import FUSED
from jetscale.model.operations import PLAIN, Operations
from jetscale.model.packing import PackingPlan
from jetscale.model.transformer import SetTransformer
from tests.model.jets import random_jets, random_lengths
from tests.runs import quiet_environment
from tests.warm import WarmServer

CPU = torch.device("cpu")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def both_ways(operation: str, *args: object) -> tuple[list[Tensor], list[Tensor]]:
    """Result and gradients of an operation by the kernels, and by plain PyTorch in double precision."""
    results = []
    for ops, dtype in ((FUSED, torch.float32), (PLAIN, torch.float64)):
        own = [
            a.detach().to(dtype).requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
            for a in args
        ]
        out = getattr(ops, operation)(*own)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(dtype)
        (out * weights).sum().backward()
        results.append([out.detach(), *(a.grad for a in own if isinstance(a, Tensor) and a.requires_grad)])
    return results[0], results[1]


def assert_agree(ours: list[Tensor], exact: list[Tensor], tolerance: float = 1e-5) -> None:
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == torch.float32
        scale = float(b.abs().max())
        torch.testing.assert_close(a.double(), b, rtol=0, atol=tolerance * max(scale, 1.0))


def attention_inputs(dim: int, lengths: list[int], gain: float = 1.0) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(dim)
    plan = PackingPlan(torch.tensor(lengths), CPU)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weights = gain * normal(3 * dim, dim) / dim**0.5, normal(dim, dim) / dim**0.5
    return normal(plan.n_tokens, dim), 1 + 0.1 * normal(dim), *weights, 8, plan


@pytest.mark.parametrize("operation", ["attend", "attend_class"])
@pytest.mark.parametrize("dim", [8, 16, 40, 128])
@pytest.mark.parametrize(
    "lengths", [random_lengths(16), [1], [7], [300], [1, 1, 6, 7, 8, 9, 15, 16]], ids=lambda x: str(len(x))
)
def test_attention(operation: str, dim: int, lengths: list[int]) -> None:
    assert_agree(*both_ways(operation, *attention_inputs(dim, lengths)))


@pytest.mark.parametrize("operation", ["attend", "attend_class"])
def test_attention_with_very_unequal_weights(operation: str) -> None:
    """Scores of several hundred: weights under- and overflow unless shifted by the largest score."""
    assert_agree(*both_ways(operation, *attention_inputs(16, [40, 3], gain=10.0)), tolerance=1e-3)


@pytest.mark.parametrize("rows", [1, 5, 1023, 2500])
@pytest.mark.parametrize("dim", [8, 16, 40, 128])
def test_feed_forward(rows: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x_SD = torch.randn(rows, dim, generator=generator)
    norm_D = 1 + 0.1 * torch.randn(dim, generator=generator)
    gate_up = torch.randn(4 * dim, dim, generator=generator) / dim**0.5
    down = torch.randn(dim, 2 * dim, generator=generator) / (2 * dim) ** 0.5
    assert_agree(*both_ways("feed_forward", x_SD, norm_D, gate_up, down))


def test_feed_forward_with_shut_and_open_gates() -> None:
    x_SD = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    gate_up = 100 * torch.eye(8).repeat(4, 1)
    assert_agree(*both_ways("feed_forward", x_SD, torch.ones(8), gate_up, torch.eye(8, 16)), tolerance=1e-6)


@pytest.mark.parametrize("dim", [8, 24])
@pytest.mark.parametrize("features", [8, 17])
@pytest.mark.parametrize("identities", [True, False])
def test_tokens(dim: int, features: int, identities: bool) -> None:
    generator = torch.Generator().manual_seed(dim)
    lengths = random_lengths(21)
    x_TF = torch.randn(sum(lengths), features, generator=generator)
    pid_T = torch.randint(1, 9, (len(x_TF),), generator=generator) if identities else None
    table = torch.randn(9, dim, generator=generator) if identities else None
    weights = torch.randn(dim, features, generator=generator), torch.randn(dim, generator=generator), table
    plan = PackingPlan(torch.tensor(lengths), CPU)
    assert_agree(*both_ways("tokens", x_TF, pid_T, *weights, torch.randn(dim, generator=generator), plan))


@pytest.mark.parametrize("dim", [8, 24, 128])
@pytest.mark.parametrize("features", [8, 17])
@pytest.mark.parametrize("identities", [True, False])
def test_attention_of_embedded_constituents(dim: int, features: int, identities: bool) -> None:
    """Against tokens made first, then attention on them: all eight gradients and that of the features."""
    generator = torch.Generator().manual_seed(dim)
    lengths = random_lengths(21)
    x_TF = torch.randn(sum(lengths), features, generator=generator)
    pid_T = torch.randint(1, 9, (len(x_TF),), generator=generator) if identities else None
    table = torch.randn(9, dim, generator=generator) if identities else None
    bias_D, class_D = torch.randn(2, dim, generator=generator)
    embedding = torch.randn(dim, features, generator=generator) / features**0.5, bias_D, table, class_D
    _, norm_D, *weights, head_dim, plan = attention_inputs(dim, lengths)
    args = x_TF, pid_T, *embedding, norm_D, *weights, head_dim, plan
    assert_agree(*both_ways("attend_embedded", *args))


@pytest.mark.parametrize("wrong", [-1, 9])
@pytest.mark.parametrize("ops", [FUSED, PLAIN], ids=["kernels", "plain"])
def test_an_identity_that_is_not_in_the_table_is_refused(wrong: int, ops: Operations) -> None:
    plan = PackingPlan(torch.tensor([2]), CPU)
    weights = torch.ones(8, 8), torch.ones(8), torch.ones(9, 8), torch.ones(8)
    with pytest.raises(IndexError):
        ops.tokens(torch.ones(2, 8), torch.tensor([1, wrong]), *weights, plan)


@pytest.mark.parametrize("operation", ["attend", "attend_class"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_what_is_not_finite_stays_so(operation: str, bad: float, position: int) -> None:
    """A broken weight must end in a loss that is not finite, never in a plausible one."""
    args = list(attention_inputs(16, [5, 9]))
    tensor = args[position]
    assert isinstance(tensor, Tensor)
    args[position] = tensor.clone()
    args[position].view(-1)[0] = bad
    assert not getattr(FUSED, operation)(*args).isfinite().all()
    x_SD, norm_D = args[:2]
    if position < 2:
        assert not FUSED.feed_forward(x_SD, norm_D, torch.eye(64, 16), torch.eye(16, 32)).isfinite().all()


@pytest.mark.parametrize("dim", [8, 24])
def test_threads_change_no_bit(dim: int, threads: Callable[[int], None]) -> None:
    results = []
    for n in (1, 3, 1):
        threads(n)
        args = [
            a.requires_grad_() if isinstance(a, Tensor) else a
            for a in attention_inputs(dim, random_lengths(32))
        ]
        x_SD, norm_D, qkv, out_weight, head_dim, plan = args
        attended = FUSED.attend(x_SD, norm_D, qkv, out_weight, head_dim, plan)
        (attended.square().sum()).backward()
        results.append([attended.detach(), x_SD.grad, norm_D.grad])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.fixture
def nan_in_new_memory() -> Iterator[None]:
    """What deterministic PyTorch does by itself, and training switches off for its cost."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1000).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dim", [8, 16, 32])
def test_nothing_unwritten_is_read(dim: int, nan_in_new_memory: None) -> None:
    model, jets = SetTransformer(dim, 10), random_jets([1, 7, 40, 8])
    results = []
    for switch in (True, False):
        deterministic: Any = torch.utils.deterministic
        deterministic.fill_uninitialized_memory = switch
        model.zero_grad()
        logits_BK = model(jets)
        logits_BK.square().sum().backward()
        results.append([logits_BK.detach(), *(weight.grad for weight in model.parameters())])
    deterministic.fill_uninitialized_memory = True
    assert all(filled.isfinite().all() for filled in results[0])
    assert all(torch.equal(filled, as_it_comes) for filled, as_it_comes in zip(*results, strict=True))


def test_gradient_of_a_gradient_is_refused() -> None:
    args = [a.requires_grad_() if isinstance(a, Tensor) else a for a in attention_inputs(8, [4])]
    out = FUSED.attend(*args)
    (gradient,) = torch.autograd.grad(out.square().sum(), [args[0]], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_where_the_kernels_apply() -> None:
    x_SD = torch.zeros(3, 16)
    assert operations_for(8, x_SD, x_SD) is FUSED
    assert operations_for(4, x_SD) is PLAIN
    assert operations_for(8, x_SD, x_SD.double()) is PLAIN
    assert operations_for(8, x_SD.to("meta")) is PLAIN
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert operations_for(8, x_SD) is PLAIN


def test_plain_pytorch_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    kernels._compiled.cache_clear()
    try:
        assert operations_for(8, torch.zeros(3, 16)) is PLAIN
    finally:
        kernels._compiled.cache_clear()


RUN_A_KERNEL = """
import torch
from pathlib import Path
from jetscale.common.compiled import cache_folder
from jetscale.model.kernels.cpu import products
folder = cache_folder(Path(products.__file__).parent)
print(products.linear(torch.ones(3, 8), torch.ones(8, 8)).sum().item(), folder)
"""
ANEW = """
import sys, warnings
warnings.simplefilter("error")
for name in [name for name in sys.modules if name.partition(".")[0] == "jetscale"]:
    del sys.modules[name]  # the cache is chosen when a kernel is defined
"""


@pytest.mark.slow
def test_processes_share_a_cache_that_one_of_them_fills(warm: WarmServer, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ANEW + RUN_A_KERNEL)
    cache = tmp_path / "cache"
    environment = {**quiet_environment(), "NUMBA_CACHE_DIR": str(cache)}
    together = [warm.start(str(program), [], tmp_path, environment) for _ in range(2)]
    for process in together:
        printed, errors = process.communicate(timeout=120)
        assert printed.startswith(f"192.0 {cache}"), errors
    (folder,) = (cache / "jetscale").iterdir()
    filled = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb*")}
    assert filled
    assert warm.run(str(program), [], tmp_path, environment).stdout.startswith("192.0")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb*")} == filled


@pytest.mark.slow
def test_kernels_compile_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_A_KERNEL], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file")},
    )  # fmt: skip
    assert done.stdout == "192.0 None\n"
