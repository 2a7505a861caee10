from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from jetscale.model.ema import WeightAverage


def step(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=generator)


def test_matches_the_recursion_written_out() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, fraction=0.1, max_window=4)
    expected = model.weight.detach().double().clone()
    for t in range(1, 61):
        step(model, t)
        average.update()
        window = min(max(1.0, 0.1 * t), 4.0)
        expected = (1 - 1 / window) * expected + model.weight.detach().double() / window
        assert average.window == window
    own = model.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(model.weight.double(), expected, rtol=0, atol=1e-5)
        assert not torch.allclose(model.weight, own)
    assert torch.equal(model.weight, own)


def test_a_window_of_one_step_is_the_weights() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, fraction=0.01)
    for t in range(20):
        step(model, t)
        average.update()
    own = model.weight.detach().clone()
    with average.applied():
        assert torch.equal(model.weight, own)


def test_applied_moves_no_data_and_survives_an_error() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model)
    step(model, 0)
    pointer, own = model.weight.data_ptr(), model.weight.detach().clone()

    def fail_inside() -> None:
        with average.applied():
            assert model.weight.data_ptr() != pointer
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert model.weight.data_ptr() == pointer
    assert torch.equal(model.weight, own)


def test_training_goes_on_unchanged_after_an_evaluation() -> None:
    results = []
    for evaluate in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        average = WeightAverage(model)
        for t in range(5):
            optimiser.zero_grad()
            model(torch.full((1, 3), float(t))).square().sum().backward()
            optimiser.step()
            average.update()
            if evaluate:
                with average.applied(), torch.no_grad():
                    model(torch.ones(1, 3))
        results.append(model.weight.detach().clone())
    assert torch.equal(*results)


def test_resume_is_exact() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = WeightAverage(model, fraction=0.3)
    for t in range(7):
        step(model, t)
        average.update()
    saved = copy.deepcopy((model.state_dict(), average.state_dict()))

    resumed_model = nn.Linear(3, 2)
    resumed_model.load_state_dict(saved[0])
    resumed = WeightAverage(resumed_model, fraction=0.3)
    resumed.load_state_dict(saved[1])
    for m, a in ((model, average), (resumed_model, resumed)):
        for t in range(7, 12):
            step(m, t)
            a.update()
    assert resumed.state_dict()["step"] == 12
    for name, value in average.state_dict()["averages"].items():
        assert torch.equal(resumed.state_dict()["averages"][name], value)


def test_state_of_another_model_is_refused() -> None:
    state = WeightAverage(nn.Linear(3, 2)).state_dict()
    with pytest.raises(ValueError, match="weight differ"):
        WeightAverage(nn.Linear(4, 2)).load_state_dict(state)


@pytest.mark.parametrize(("fraction", "longest"), [(0.0, None), (1.5, None), (0.1, 0)])
def test_impossible_windows_are_refused(fraction: float, longest: int | None) -> None:
    with pytest.raises(ValueError, match="window must be"):
        WeightAverage(nn.Linear(1, 1), fraction, longest)
