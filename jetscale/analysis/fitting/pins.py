"""Pinned parameters: any form with some of its parameters held at given values instead of being fitted.

A pinned form is the form itself with fewer free parameters, so starts, solver, certificate, replicates,
profiles and plans treat it as any other. A pinned A is one at N = 1: ln N is not centred then, since a
centred ln A changes with alpha.

Shapes: R replicates, P points, Q parameters theta of the form, F of them free.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import (
    Bounds,
    Index,
    Target,
    coordinates_of,
    pinned_constraint,
)
from jetscale.analysis.fitting.surface import SurfaceForm, form_named
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    from jetscale.analysis.settings import Approach3Settings

Array = NDArray[np.float64]


def form_of(settings: Approach3Settings) -> SurfaceForm:
    """The form that the settings ask for, with its parameters pinned as they say.

    Raises
    ------
    UsageError
        No such form or parameter; a value out of its range; nothing left to fit; two pins that contradict.
    """
    return pinned_form(settings.form, settings.pin)


def pinned_form(name: str, pins: Mapping[str, float]) -> SurfaceForm:
    """The form that is registered under `name`, some of its parameters held.

    Parameters
    ----------
    name : of the form.
    pins : values by their names in results.json ("alpha", "L_inf").
    """
    return _pinned(name, tuple(sorted((key, float(value)) for key, value in pins.items())))


@lru_cache(maxsize=64)
def _pinned(name: str, pins: tuple[tuple[str, float], ...]) -> SurfaceForm:
    form = form_named(name)
    if not pins:
        return form
    columns: dict[int, float] = {}
    for key, value in pins:
        if key not in form.reported:
            known = ", ".join(form.reported)
            raise UsageError(
                f"approach3.pin.{key}={value:g}: form {name!r} has no such parameter; it has {known}"
            )
        parameter = form.reported[key]
        logarithm = parameter.startswith("log_")
        low, high = (0.0, np.inf) if logarithm else form.limit(parameter)
        if not (low < value < high and np.isfinite(value)):
            raise UsageError(f"approach3.pin.{key}={value:g}: must lie between {low:g} and {high:g}")
        columns[form.column(parameter)] = float(np.log(value)) if logarithm else value
    base = type(form)
    made: SurfaceForm = type(f"Pinned{base.__name__}", (_Pinned, base), {})(columns, dict(pins))
    return made


class _Pinned(SurfaceForm):
    """What pins change of a form; the form itself is the next base class."""

    def __init__(self, value: dict[int, float], pins: dict[str, float]) -> None:
        super().__init__()
        self._value = value
        self._pins = pins
        self._base_free = super().free
        at = coordinates_of(super().constraint, len(self._base_free), list(value))
        named = ", ".join(f"{key}={number:g}" for key, number in pins.items())
        if at is None:
            raise UsageError(
                f"approach3.pin: {named} cannot be held together by form {type(self).__name__[6:]}"
            )
        if len(at) == len(self._base_free):
            raise UsageError(f"approach3.pin: {named} leave nothing to fit")
        self._at = at
        self._kept = [f for f in range(len(self._base_free)) if f not in at.values()]
        self._constraint = pinned_constraint(super().constraint, len(self._base_free), at, value)
        self._fixed = self._fixed_columns()
        missing = (3 - sum(name in self._fixed_names() for name in pair) for pair in _OF_AXES)
        few_N, few_D = (max(2, count) for count in missing)
        self.distinct = (few_N, few_D)
        self._searched: SurfaceForm = type(self).__mro__[2]()
        self._searched.start_grids = self._held_grids()

    def _fixed_columns(self) -> dict[int, float]:
        """Columns of theta that do not move, with their values: a tied exponent holds two."""
        phi = np.stack([np.full(len(self._kept), at) for at in (0.3, 0.7)])
        one, other = self._constraint(phi, np.array([0, 0]))[0]
        return {int(q): float(one[q]) for q in np.flatnonzero(one == other)}

    def _held_grids(self) -> tuple[Array, Array]:
        """Exponents among which starts are searched: one value for an exponent that is held."""
        held = dict(zip(self._fixed_names(), self._fixed.values(), strict=True))
        alphas, betas = (
            np.array([held[name]]) if name in held else grid
            for name, grid in zip(("alpha", "beta"), self.start_grids, strict=True)
        )
        return alphas, betas

    def _fixed_names(self) -> list[str]:
        return [self.parameters[q] for q in self._fixed]

    @property
    def pinned(self) -> dict[str, float]:
        """See `SurfaceForm.pinned`."""
        return self._pins

    @property
    def centred(self) -> tuple[bool, bool]:
        """Only along an axis whose centring leaves the held parameters as they are."""
        theta = np.full((1, len(self.parameters)), 0.3)
        moved = (self.moved(theta, *shift) for shift in ((1.0, 0.0), (0.0, 1.0)))
        along_N, along_D = (bool((one == theta)[0, list(self._fixed)].all()) for one in moved)
        return along_N, along_D

    @property
    def free(self) -> tuple[str, ...]:
        """Those of the form less the held ones."""
        return tuple(self._base_free[f] for f in self._kept)

    def constraint(self, phi_RF: Array, index: Index) -> tuple[Array, Array, Array | None]:
        """See `SurfaceForm.constraint`."""
        return self._constraint(phi_RF, index)

    def reduced(self, theta_RQ: Array) -> Array:
        """See `SurfaceForm.reduced`."""
        return np.asarray(super().reduced(theta_RQ)[:, self._kept])

    def starts(self, x_P: Array, y_P: Array, log_L_RP: Array, weight_RP: Array, count: int) -> Array:
        """Those of the form, (R, count, F); next to a held A or B, exponents that keep its term's size."""
        names = self._base_free
        full = self._searched.starts(x_P, y_P, log_L_RP, weight_RP, count)
        for scale, exponent, axis_P in (("log_A", "alpha", x_P), ("log_B", "beta", y_P)):
            if {scale, exponent} <= set(names) and scale in self._fixed_names():
                s, e = names.index(scale), names.index(exponent)
                held, middle = self._value[self.column(scale)], float(axis_P.mean())
                wanted = full[:, :, e] + (held - full[:, :, s]) / middle if middle else full[:, :, e]
                full[:, :, e] = np.clip(wanted, 0.02, 3.0)
        return full[:, :, self._kept]

    def bounds(self, log_L_RP: Array) -> Bounds:
        """Those of the free parameters."""
        base = self._searched.bounds(log_L_RP)
        return Bounds(base.low[self._kept], base.high[self._kept])

    def directions(self, theta_Q: Array, x_P: Array, y_P: Array, dx: float, dy: float) -> Array:
        """Derivatives by the free parameters only, (P, F)."""
        tangent = self._constraint(self.reduced(theta_Q[None]), np.array([0]))[1][0]
        shifts = [shift if moves else 0.0 for shift, moves in zip((dx, dy), self.centred, strict=True)]
        return np.asarray(super().directions(theta_Q, x_P, y_P, *shifts) @ tangent)

    def targets(self, bounds: Bounds, reach: float) -> dict[str, Target]:
        """Those of the form, each with the pins held too; without those that the pins decide."""
        low, high = (np.empty(len(self._base_free)) for _ in range(2))
        low[self._kept], high[self._kept] = bounds.low, bounds.high
        for column, f in self._at.items():
            low[f] = high[f] = self._value[column]
        found = {}
        for name, target in super().targets(Bounds(low, high), reach).items():
            pinned = self._pinned_target(target)
            if pinned is not None:
                found[name] = pinned
        return found

    def _pinned_target(self, target: Target) -> Target | None:
        size = len(target.bounds.low)
        middle = np.array([0.5 if target.low <= 0.5 <= target.high else 0.5 * (target.low + target.high)])
        at = coordinates_of(target.fix(middle), size, list(self._value))
        if at is None or len(at) == size:
            return None
        kept = [f for f in range(size) if f not in at.values()]
        return Target(
            of=target.of,
            fix=lambda t_R: pinned_constraint(target.fix(t_R), size, at, self._value),
            reduce=lambda theta: target.reduce(theta)[:, kept],
            bounds=Bounds(target.bounds.low[kept], target.bounds.high[kept]),
            low=target.low,
            high=target.high,
        )


_OF_AXES = (("log_A", "alpha"), ("log_B", "beta"))
