"""What is computed for many subsets, slices or groups at once is what each gives alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import fdtrc

from jetscale.analysis.checks.lack_of_fit import bend_test
from jetscale.analysis.errors.profile import Wanted, profile, profiles
from jetscale.analysis.fitting.isoflop import Slice, vertices
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import Surfaces, form_named
from jetscale.analysis.fitting.surface_fit import Fitter, Problem, precompare
from jetscale.analysis.joint.model import _Sums

Array = NDArray[np.float64]

SURFACE = Surfaces.from_theta(np.array([-1.0, -0.8, 0.4, 0.3, 0.35]))


def problems(*sizes: int, form: str = "separate") -> list[Problem]:
    """Points with scatter, as many as asked for each."""
    rng, found = np.random.default_rng(5), []
    for points in sizes:
        x, y = rng.uniform(-3, 3, (2, points))
        log_L = SURFACE.log_loss(x, y)[0] + 0.01 * rng.standard_normal(points)
        found.append((Fitter(x + 9, y + 11, Objective("huber", 0.02), form_named(form)), log_L))
    return found


def test_profiles_of_several_fits_are_those_of_each() -> None:
    wanted = [
        Wanted(fitter, log_L, fitter.point(log_L)[0].surfaces, 24.0) for fitter, log_L in problems(30, 44)
    ]
    for one, together in zip(wanted, profiles(wanted, [80.0]), strict=True):
        alone = profile(one.fitter, one.log_L, one.surface, one.log_reach, levels=[80.0])
        assert list(together) == list(alone)
        for name, quantity in alone.items():
            assert quantity.ci95 is not None, name
            assert together[name].ci95 == pytest.approx(quantity.ci95, rel=1e-7), name
            assert together[name].sd == pytest.approx(quantity.sd, rel=1e-7), name


def test_forms_compared_at_once_end_where_each_does() -> None:
    several = problems(30, 44, form="coupled")
    precompare(several)
    for fitter, log_L in several:
        additive = fitter.additive
        starts = fitter.form.nearby(additive.centred(additive.point(log_L)[0].surfaces))
        assert starts is not None
        ended = fitter.solve(starts, log_L[None], np.ones((1, len(log_L))))
        own = fitter.uncentred(ended.theta[[ended.objective.argmin()]])
        x, y = fitter.log_N[:5] + 1, fitter.log_D[:5] + 1
        np.testing.assert_allclose(fitter.compared(log_L)(x, y), own.log_loss(x, y)[0], rtol=1e-9)


def test_vertices_of_slices_of_different_lengths() -> None:
    """Against numpy's polynomials of each slice, with weights; one that is absent does not count."""
    rng = np.random.default_rng(6)
    slices: list[Slice] = []
    x_P: list[Array] = []
    y_RP: list[Array] = []
    weight_RP: list[Array] = []
    for members in (5, 8, 6):
        first = sum(len(x) for x in x_P)
        index = first + np.arange(members)
        slices.append(Slice(20.0 + members, index, index, np.zeros(members)))
        x_P.append(np.linspace(-2, 2, members) + members)
        y_RP.append((x_P[-1] - members - 0.2) ** 2 + 0.05 * rng.standard_normal((4, members)))
        weight_RP.append(rng.uniform(0.5, 2.0, (4, members)))
    x, y, weight = np.concatenate(x_P), np.concatenate(y_RP, axis=1), np.concatenate(weight_RP, axis=1)
    weight[2, 0] = weight[3, 1] = 0.0  # of the first slice, which then has too few
    for degree in (2, 3):
        found = vertices(slices, x, y, weight, degree, 5)
        assert found.shape == (4, 3)
        for k, one in enumerate(slices):
            for r in range(4):
                at = one.low[weight[r, one.low] > 0]
                if len(at) < 5:
                    assert np.isnan(found[r, k])
                    continue
                fitted = np.polynomial.Polynomial.fit(x[at], y[r, at], degree, w=np.sqrt(weight[r, at]))
                roots = fitted.deriv().roots()
                lowest = [float(t.real) for t in roots if abs(t.imag) < 1e-9 and fitted.deriv(2)(t.real) > 0]
                inside = [t for t in lowest if x[at].min() < t < x[at].max()]
                if inside:
                    assert found[r, k] == pytest.approx(inside[0], rel=1e-8)
                else:
                    assert np.isnan(found[r, k])
    assert vertices([], x, y, weight, 2, 5).shape == (4, 0)


def test_sums_over_groups() -> None:
    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(12, 9)) * (rng.random((12, 9)) > 0.6)
    matrix[:, 4] = 0.0  # a column that no group has
    values = rng.normal(size=(3, 7, 4))
    expected = values.transpose(1, 0, 2).reshape(7, 12) @ matrix
    np.testing.assert_allclose(_Sums.of(matrix)(values), expected, rtol=1e-12, atol=1e-14)


def test_bends_where_two_sizes_make_directions_depend_on_each_other() -> None:
    """E, A and alpha are three parameters, but two sizes only: least squares by ranks gives the same test."""
    rng = np.random.default_rng(8)
    x = np.repeat([-1.0, 1.5], [24, 12])
    y = np.concatenate([np.linspace(-2, 2, 24), np.linspace(-1, 2, 12)])
    residual = 0.01 * rng.standard_normal(36) + 0.003 * y**2
    J = SURFACE.directions(x, y)
    from_mean = [(axis - axis.mean()) / axis.std() for axis in (x, y)]
    bends = np.stack([from_mean[0] ** 2, from_mean[0] * from_mean[1], from_mean[1] ** 2], axis=1)
    rank = int(np.linalg.matrix_rank(J))
    assert rank == 4
    left = [
        float(((residual - design @ np.linalg.lstsq(design, residual, rcond=1e-10)[0]) ** 2).sum())
        for design in (J, np.hstack([J, bends]))
    ]
    free = len(x) - rank - 3
    ratio = (left[0] - left[1]) / 3 / (left[1] / free)
    for nudge in (0.0, 1e-15, -1e-15):
        surface = Surfaces.from_theta(SURFACE.theta[0] * (1 + nudge))
        found = bend_test(surface, x, y, residual, None, np.inf)
        assert found is not None
        assert found["p_value"] == pytest.approx(float(fdtrc(3, free, ratio)), rel=1e-8)
