from __future__ import annotations

import math

import pytest

from jetscale.training.learning_rates import learning_rate, rate_at
from jetscale.training.seeds import seed_for
from jetscale.training.settings import EvalSettings


def test_rate_by_width():
    assert learning_rate(1e-3, 8) == 1e-3
    assert learning_rate({"table": {8: 3e-3, "16": 2e-3}}, 16) == 2e-3
    assert learning_rate({"base": 1e-3, "dim": 64, "power": -0.5}, 16) == pytest.approx(2e-3)


@pytest.mark.parametrize(
    "spec",
    [0, -1e-3, math.inf, True, None, {"rate": 1}, {"table": {8: 1e-3}}, {"table": {16: 1e-3, "016": 2e-3}}],
)
def test_rates_that_make_no_sense_are_errors(spec):
    with pytest.raises(ValueError, match="rate"):
        learning_rate(spec, 16)


def test_warm_up_then_constant():
    rates = [rate_at(step, 1.0, 4, 10, "constant") for step in range(10)]
    assert rates == [0.25, 0.5, 0.75, 1.0, *[1.0] * 6]


def test_cosine_ends_near_zero():
    assert rate_at(4, 1.0, 4, 104, "cosine") == 1.0
    assert rate_at(54, 1.0, 4, 104, "cosine") == pytest.approx(0.5)
    assert rate_at(103, 1.0, 4, 104, "cosine") < 1e-3


def test_evaluation_steps():
    assert EvalSettings(every=4, log_points=0).evaluation_steps(10) == {4, 8, 10}
    steps = sorted(EvalSettings(every=1_000, log_points=5).evaluation_steps(1_000))
    assert steps == [10, 32, 100, 316, 1_000]


def test_seed_zero_is_a_seed():
    seeds = {seed_for(seed, purpose) for seed in range(5) for purpose in ("order", "weights")}
    assert len(seeds) == 10
    assert seed_for(0, "order") == seed_for(0, "order")
    assert all(0 <= seed < 2**63 for seed in seeds)
