"""Measures against closed forms and other people's code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from jetscale.common.usage import UsageError
from jetscale.composition.alignment import NEIGHBOURS, auc, covered, separation, wasserstein
from jetscale.composition.diversity import effective_number, median_distance, vendi, width
from jetscale.composition.half_samples import measured
from jetscale.composition.settings import LEAST_JETS

RNG = np.random.default_rng(20261124)


def test_effective_number_of_classes() -> None:
    assert effective_number(np.repeat(np.arange(7), 11)) == pytest.approx(7)
    assert effective_number(np.zeros(5, int)) == pytest.approx(1)
    half, quarter = 0.5 * np.log(2), 0.25 * np.log(4)
    assert effective_number(np.array([0, 0, 1, 2])) == pytest.approx(np.exp(half + 2 * quarter))


def test_vendi_counts_what_differs() -> None:
    corners = 100.0 * np.eye(6)
    assert vendi(corners, scale=1.0) == pytest.approx(6)
    assert vendi(np.repeat(corners, 5, axis=0), scale=1.0) == pytest.approx(6), "copies add nothing"
    assert vendi(np.zeros((9, 3)), scale=1.0) == pytest.approx(1)
    two = np.array([[0.0], [2.0]])  # similarity k: eigenvalues (1 + k) / 2 and (1 - k) / 2
    k = np.exp(-(2.0**2) / 2)
    shares = np.array([1 + k, 1 - k]) / 2
    assert vendi(two, scale=1.0) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_median_distance() -> None:
    assert median_distance(np.array([[0.0], [1.0], [3.0]])) == 2.0


def test_width_of_a_normal_distribution() -> None:
    values = norm.ppf((np.arange(4001) + 0.5) / 4001)
    assert width(3 * values + 7, values) == pytest.approx(3)


def test_covered_is_the_union_of_balls() -> None:
    x, of = RNG.normal(size=(150, 3)), RNG.normal(0.7, 1.3, size=(700, 3))
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
    radius = np.sort(distance, axis=1)[:, NEIGHBOURS]  # the 0th is the jet itself
    inside = [any(np.linalg.norm(x - jet, axis=1) <= radius) for jet in of]
    assert 0.2 < np.mean(inside) < 0.9
    assert covered(x, of) == pytest.approx(np.mean(inside), abs=1e-12)
    assert covered(x, x + 100) == 0
    assert covered(x, x) == 1


def test_auc_is_mann_whitney() -> None:
    ours, theirs = RNG.normal(0.5, 1, 300), RNG.normal(0, 1, 200)
    assert auc(ours, theirs) == pytest.approx(mannwhitneyu(ours, theirs).statistic / (300 * 200))


def test_separation_of_two_normals_is_near_the_best() -> None:
    n, shift = 1500, 1.5
    ours, theirs = RNG.normal(shift, 1, (n, 1)), RNG.normal(0, 1, (n, 1))
    best = norm.cdf(shift / np.sqrt(2))  # of the likelihood ratio
    assert best - 0.05 < auc(*separation(ours, theirs, seed=0)) < best + 0.02
    same = auc(*separation(RNG.normal(size=(n, 2)), RNG.normal(size=(n, 2)), seed=0))
    assert same == pytest.approx(0.5, abs=0.04), "jets that were trained on do not count"


def test_the_fewest_jets_are_enough_to_tell_samples_apart() -> None:
    """Leaves hold 20 jets: with too few jets no tree has a branch, and any two samples looked alike."""
    rng = np.random.default_rng(1)
    apart, here = rng.normal(10, 1, (LEAST_JETS, 7)), rng.normal(0, 1, (LEAST_JETS, 7))
    assert auc(*separation(apart, here, seed=0)) == pytest.approx(1)
    found = []
    for _ in range(8):
        ours, theirs = rng.normal(size=(2, LEAST_JETS, 7))
        ours[:, 0] += 1
        found.append(auc(*separation(ours, theirs, seed=0)))
    assert np.mean(found) > 0.66, "0.70 with many jets, 0.63 with 30"
    for samples in ((apart[1:], here), (apart, here[1:])):
        with pytest.raises(
            UsageError, match=r"39 jets are too few .*which needs 40 of each sample; take more"
        ):
            separation(*samples, seed=0)


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    values = RNG.normal(0, 2.0, 500)
    assert wasserstein(values + 3, values) == pytest.approx(3 / values.std())
    assert wasserstein(values, values) == 0


def test_standard_error_of_a_mean() -> None:
    values = RNG.exponential(size=2000)
    found = measured(lambda rows: float(values[rows[0]].mean()), (2000,), draws=400, seed=1)
    assert found.value == values.mean()
    assert found.sd == pytest.approx(values.std() / np.sqrt(2000), rel=0.15)
    assert found.ci95 == pytest.approx((found.value - 1.96 * found.sd, found.value + 1.96 * found.sd))


def test_standard_error_of_two_samples_and_limits() -> None:
    a, b = RNG.normal(0, 1, 600), RNG.normal(0, 1, 900)
    a, b = a - a.mean(), b - b.mean()  # whatever other tests have drawn: the interval must reach the limit
    found = measured(
        lambda rows: float(abs(a[rows[0]].mean() - b[rows[1]].mean())), (600, 900), 400, 1, (0, np.inf)
    )
    assert found.ci95[0] == 0
    signed = measured(lambda rows: float(a[rows[0]].mean() - b[rows[1]].mean()), (600, 900), 400, 1)
    assert signed.sd == pytest.approx(np.sqrt(1 / 600 + 1 / 900), rel=0.2)


def test_intervals_of_recall_cover() -> None:
    """The interval's half-sampling holds for neighbours too: repeated samples scatter as it says."""
    draws = []
    for number in range(40):
        rng = np.random.default_rng(number)
        x, of = rng.normal(size=(300, 2)), rng.normal(1.0, 1, size=(300, 2))
        draws.append((covered(x, of), x, of))
    scatter = np.std([value for value, _, _ in draws], ddof=1)
    _, x, of = draws[0]
    one = measured(lambda rows: covered(x[rows[0]], of[rows[1]]), (300, 300), draws=60, seed=0)
    assert 0.6 < one.sd / scatter < 1.6
