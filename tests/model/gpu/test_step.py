"""Steps and evaluations on static memory against the plain model, AdamW of PyTorch and `WeightAverage`."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.nn import functional

from jetscale.model.ema import WeightAverage
from jetscale.model.kernels.gpu import optimiser, step, wide
from jetscale.model.kernels.gpu import weights as sums
from jetscale.model.kernels.gpu.buffers import JetBuffers, Tables
from jetscale.model.transformer import SetTransformer
from tests.model.gpu.chunks import DEVICE, N_PID, TOLERANCE, assert_close, batch, chunk

pytestmark = pytest.mark.gpu

STEPS, N_JETS, SPARE = 10, 2, 9
RATES = [1e-3 * (i + 1) / STEPS for i in range(STEPS)]


def jets_of_chunk(n_jets: int) -> JetBuffers:
    generator = torch.Generator().manual_seed(3)
    return chunk(torch.randint(1, 6, (n_jets,), generator=generator).tolist(), n_classes=3)


def capacity_of(jets: JetBuffers) -> int:
    return int(jets.offsets[N_JETS:].sub(jets.offsets[:-N_JETS]).max()) + N_JETS


def model_of(dim: int, depth: int = 2) -> SetTransformer:
    torch.manual_seed(dim)
    return SetTransformer(dim, 3, n_pid=N_PID, depth=depth)


@pytest.mark.parametrize(
    ("widest_narrow", "depth", "clip", "averaged"), [(128, 1, None, True), (0, 2, 0.2, False)]
)
def test_ten_steps_are_ten_steps_of_adamw(
    widest_narrow: int, depth: int, clip: float | None, averaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "WIDEST", widest_narrow)
    for module, name in ((wide, "NORM_PARTS"), (wide, "EMBEDDING_PARTS"), (sums, "_MOST_PARTS")):
        monkeypatch.setattr(module, name, 2)  # programs without rows cost the interpreter as much as others
    if widest_narrow == 0:
        monkeypatch.setattr(optimiser, "JETS_AT_ONCE", 1)  # a large batch is taken in parts
    settings = optimiser.AdamWSettings(beta1=0.9, beta2=0.99, weight_decay=0.1, clip=clip)
    jets = jets_of_chunk(STEPS * N_JETS)
    plain = model_of(8, depth)
    ours = deepcopy(plain).to(DEVICE)

    adamw = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.99), weight_decay=0.1)
    average = WeightAverage(plain, fraction=0.5)
    losses = []
    for i, rate in enumerate(RATES):
        jets_of_step = batch(jets, i * N_JETS, N_JETS)
        adamw.param_groups[0]["lr"] = rate
        adamw.zero_grad()
        loss = functional.cross_entropy(plain(jets_of_step), jets_of_step.labels_B)
        loss.backward()
        if clip is not None:
            assert torch.nn.utils.clip_grad_norm_(plain.parameters(), clip) > clip
        adamw.step()
        average.update()
        losses.append(loss.detach())

    own_average = WeightAverage(ours, fraction=0.5) if averaged else None
    state = optimiser.FlatState(ours, own_average, half_dtype=torch.float32)
    tables = Tables.allocate(STEPS, DEVICE)
    for i, rate in enumerate(RATES):
        weight = 1 / max(1.0, 0.5 * (i + 1))
        tables.rows_K4[i] = torch.tensor(optimiser.table_row(rate, i + 1, settings, weight))
    capacity = capacity_of(jets)
    roomy = step.DeviceStep(ours, N_JETS, capacity + SPARE, state, jets, tables, settings)
    tight = roomy.up_to(capacity)  # in the same memory, in turn: neither may rely on what it left there
    for i in range(STEPS):
        (tight if i % 2 else roomy).train()

    assert int(jets.first) == STEPS * N_JETS
    assert int(tables.k) == STEPS
    assert_close(tables.losses, torch.stack(losses), TOLERANCE)
    expected = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        assert_close(parameter, expected[name], TOLERANCE)
    if own_average is not None:
        theirs = average.state_dict()["averages"]
        for name, value in own_average.state_dict()["averages"].items():
            assert_close(value, theirs[name], TOLERANCE)


@pytest.mark.parametrize("widest_narrow", [128, 0])
def test_an_evaluation_leaves_every_loss_at_its_jet(
    widest_narrow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "WIDEST", widest_narrow)
    if widest_narrow == 0:
        monkeypatch.setattr(step, "JETS_AT_ONCE", 1)
    n_batches = 3
    jets, model = jets_of_chunk(n_batches * N_JETS), model_of(8, depth=3)
    model.to(DEVICE)
    weights = optimiser.FlatState(model, half_dtype=torch.float32).weights
    losses_J = torch.zeros(len(jets.labels), device=DEVICE)
    correct_J = torch.zeros(len(jets.labels), dtype=torch.uint8, device=DEVICE)
    capacity, of_jets = capacity_of(jets), (losses_J, correct_J)
    roomy = step.DeviceEvaluation(model, N_JETS, capacity + SPARE, weights, jets, *of_jets)
    tight = roomy.up_to(capacity)
    for i in range(n_batches):
        (tight if i % 2 else roomy).evaluate()
    assert int(jets.first) == n_batches * N_JETS
    whole = batch(jets, 0, n_batches * N_JETS)
    with torch.no_grad():
        logits = deepcopy(model).cpu().double()(type(whole)(**{**vars(whole), "x_TF": whole.x_TF.double()}))
    assert_close(losses_J, functional.cross_entropy(logits, whole.labels_B, reduction="none"))
    assert correct_J.tolist() == (logits.argmax(1) == whole.labels_B).tolist()
