"""Laws of transfer: what pretraining does to the loss after fine-tuning, in one model with runs from scratch.

All share E, A, B, alpha and beta with scratch, so only what pretraining adds is left to each composition:

- ``none``: nothing; every run as from scratch.
- ``effective_data``: B / (D + D_T)^beta with D_T = k D_pre^p N^q, the effective data transferred (Hernandez
  et al., arXiv:2102.01293, whose law has the fine-tuning data in place of D_pre; the rectified law of Lin et
  al., arXiv:2402.02314, adds a constant to the data too).
- ``multiplicative``: k B / (D_pre^p N^q D^beta); Zhang et al., arXiv:2402.17193 (fine-tuning data, size and
  pretraining data multiply), for one size also Mikami et al., arXiv:2108.11018.
- ``decaying``: k B / (D_pre^p N^q D^(beta - s ln D_pre)): the gain of pretraining dies out with D, since the
  exponent of the fine-tuning data falls with ln D_pre; Liew and Kato, arXiv:2510.06548.

A power of D_pre is free only where a composition has runs of two D_pre or more, one of N where there are two
sizes or more; else it is left out, and said to be. Two sizes cannot determine E, A and alpha: alpha is held
at 0.5, on which nothing that describes pretraining depends; with one size there is no A.

Shapes: R replicates, P points of a group, F parameters of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.constraints import Bounds
from jetscale.analysis.fitting.numbers import distinct
from jetscale.analysis.fitting.objective import Objective
from jetscale.analysis.fitting.surface import FLOOR_BOUND, SurfaceForm, Surfaces, form_named
from jetscale.analysis.joint.groups import Composition
from jetscale.analysis.joint.model import Group, JointCertificate, JointFit, JointModel, Losses
from jetscale.analysis.joint.sharing import COLUMNS, Points, joint_centre, losses_of
from jetscale.analysis.joint.transfer_forms import Tilted, WithExtraData
from jetscale.analysis.joint.transfer_starts import alone, pooled_nodes

Array = NDArray[np.float64]

POWERS = (-3.0, 3.0)  # of D_pre and of N
HELD_ALPHA, NO_TERM = 0.5, -60.0
STARTS = 4  # nodes of either kind
LEAST_DATA, MOST_DATA = 1e-3, 1e4  # of D_T, in units of the smallest and of the largest D


@dataclass(frozen=True)
class Law:
    """One law of transfer.

    Attributes
    ----------
    name, formula, source : for results.json and the report.
    form : of the pretrained groups.
    decays : whether the exponent of D depends on D_pre.
    """

    name: str
    formula: str
    source: str
    form: type[SurfaceForm] | None = None
    decays: bool = False


_START = "L_inf + A/N^alpha + "
LAWS = {
    law.name: law
    for law in (
        Law("none", f"{_START}B/D^beta for all", "no transfer"),
        Law(
            "effective_data",
            f"{_START}B/(D + D_T)^beta, D_T = k D_pre^p N^q",
            "Hernandez et al., arXiv:2102.01293",
            WithExtraData,
        ),
        Law(
            "multiplicative",
            f"{_START}k B/(D_pre^p N^q D^beta)",
            "Zhang et al., arXiv:2402.17193",
            Tilted,
        ),
        Law(
            "decaying",
            f"{_START}k B/(D_pre^p N^q D^(beta - s ln D_pre))",
            "Liew and Kato, arXiv:2510.06548",
            Tilted,
            decays=True,
        ),
    )
}


@dataclass(frozen=True)
class TransferModel:
    """A law of transfer as a joint model of scratch and all compositions.

    Attributes
    ----------
    law : which one.
    model : parameters and groups; phi begins with those of L_inf, A, B, alpha and beta that are not held.
    held : common parameters that the sizes do not determine, at the value they are held at (ln of a scale).
    scratch : name of the group from scratch.
    compositions : the others.
    """

    law: Law
    model: JointModel
    scratch: str
    compositions: tuple[Composition, ...]
    held: dict[str, float]

    @classmethod
    def of(
        cls,
        law: Law,
        points: Mapping[str, Points],
        scratch: str,
        compositions: tuple[Composition, ...],
        objective: Objective,
    ) -> TransferModel:
        """Model of these groups under one law.

        Parameters
        ----------
        law : which one.
        points : by group, that from scratch among them.
        scratch : its name.
        compositions : of the other groups.
        objective : what is minimised.
        """
        centre = joint_centre(points)
        held = held_for(points)
        names = [name for name in COLUMNS if name not in held]
        for one in compositions if law.form else ():
            names += [f"{one.name}.{key}" for key in _keys(law, one, points)]
        groups = [_group(law, scratch, None, points[scratch], names, held, centre)]
        groups += [
            _group(law, group, one, points[group], names, held, centre)
            for one in compositions
            for group in one.groups
        ]
        bounds = _bounds(names, law, points, centre)
        model = JointModel(tuple(names), tuple(groups), objective, bounds, centre)
        return cls(law, model, scratch, compositions, held)

    def has(self, composition: str, key: str) -> bool:
        """Whether a parameter of a composition is free."""
        return f"{composition}.{key}" in self.model.names

    def common(self, phi_RF: Array) -> dict[str, Array]:
        """L_inf, A, B, alpha and beta of scratch, (R,)."""
        surfaces = self.model.surfaces(phi_RF)[self.scratch]
        return surfaces.form.values(surfaces.theta)

    def theta(self, phi_RF: Array) -> dict[str, Array]:
        """Parameters for N, D and D_pre themselves, (R,): logarithms of scales; powers that are held are 0.

        ``log_k`` takes in the power of D_pre where that is not free.
        """
        surfaces = self.model.surfaces(phi_RF)
        of_scratch = surfaces[self.scratch]
        found = {name: of_scratch[name] for name in COLUMNS.values()}
        for one in self.compositions if self.law.form else ():
            group = next(iter(one.groups))
            theta, logs = surfaces[group], one.log_jets or {}
            for key in ("p", "q", *(["s"] if self.law.decays else [])):
                free = self.has(one.name, key)
                column = phi_RF[:, self.model.column(f"{one.name}.{key}")] if free else np.zeros(len(phi_RF))
                found[f"{one.name}.{key}"] = column
            if self.law.decays and self.has(one.name, "p"):
                # D^(s ln D_pre) at the centre of ln D is a power of D_pre as well: in phi it is taken off p
                found[f"{one.name}.p"] = (
                    found[f"{one.name}.p"] + found[f"{one.name}.s"] * self.model.centre[1]
                )
            shift = found[f"{one.name}.p"] * logs.get(group, 0.0)
            if "log_T" in theta.form.parameters:
                found[f"{one.name}.log_k"] = theta["log_T"] - shift
            else:
                found[f"{one.name}.log_k"] = theta["log_B"] - of_scratch["log_B"] + shift
        return found

    def starts(self, log_L: Losses, weight: Losses, common_SR5: Array) -> Array:
        """Starts (S, R, F): given what all share, the best parameters of every composition.

        Parameters
        ----------
        log_L, weight : by group, (R, P) or (1, P).
        common_SR5 : (S, R, 5) centred parameters of scratch.
        """
        S, R, _ = common_SR5.shape
        starts = np.zeros((S, R, len(self.model.names)))
        common = [name for name in COLUMNS if name not in self.held]
        own = np.arange(len(common), len(self.model.names))
        order = [SurfaceForm.parameters.index(COLUMNS[name]) for name in common]
        starts[:, :, : len(common)] = common_SR5[:, :, order]
        pretrained = [group for group in self.model.groups if group.name != self.scratch]
        if len(own):
            # what each group alone would have, brought to the nearest parameters of its composition
            inverse = np.linalg.pinv(np.concatenate([group.matrix[:, own] for group in pretrained]))
            for s in range(S):
                given, shared = common_SR5[s], starts[s][:, : len(common)]
                wanted = [
                    alone(one, given, len(common), log_L[one.name], weight[one.name]) for one in pretrained
                ]
                base = [shared @ one.matrix[:, : len(common)].T + one.offset for one in pretrained]
                rest = np.concatenate(wanted, axis=1) - np.concatenate(base, axis=1)
                starts[s][:, own] = rest @ inverse.T
        return np.clip(starts, self.model.bounds.low, self.model.bounds.high)

    def point(self, points: Mapping[str, Points], starts: int = STARTS) -> tuple[JointFit, JointCertificate]:
        """Fit the data, from several starts far apart: nodes of scratch's own fit, and of all groups pooled.

        Parameters
        ----------
        points : by group.
        starts : nodes of either kind.
        """
        log_L, weight = losses_of(points)
        nodes = [
            pooled_nodes(self.model.groups[:1], log_L, weight, starts),
            pooled_nodes(self.model.groups, log_L, weight, starts),
        ]
        return self.model.point(self.starts(log_L, weight, np.concatenate(nodes))[:, 0], log_L, weight)

    def replicates(self, log_L: Losses, weight: Losses, fit: JointFit) -> JointFit:
        """Fit every replicate from its own best node; D_T may have several minima: from the data's too.

        A replicate that is left in whichever of two minima its path leads to would hang on rounding: the
        lowest of several decides.

        Parameters
        ----------
        log_L, weight : by group, (R, P) or (1, P).
        fit : of the data.
        """
        starts = self.starts(log_L, weight, pooled_nodes(self.model.groups[:1], log_L, weight, 1))
        if self.law.form is WithExtraData and fit.minima is not None:
            shape = (len(fit.minima), *starts.shape[1:])
            starts = np.concatenate([starts, np.broadcast_to(fit.minima[:, None], shape)])
        return self.model.best(starts, log_L, weight)

    def log_data(self, phi_RF: Array, group: str, log_N: float) -> Array:
        """Ln D_T of a group at one size, (R,); of the law ``effective_data``."""
        surfaces: Surfaces = self.model.surfaces(phi_RF)[group]
        return np.asarray(surfaces["log_T"] + surfaces["q"] * log_N)

    def no_data(self, phi_RF: Array, composition: str) -> NDArray[np.bool_]:
        """Rows in which D_T is as small as it may be: pretraining is worth nothing, (R,)."""
        column = self.model.column(f"{composition}.k")
        return np.asarray(phi_RF[:, column] <= self.model.bounds.low[column] + 1e-3)

    def out_of_reach(self, phi_RF: Array, composition: str) -> NDArray[np.bool_]:
        """Rows in which D_T is as large as it may be: the losses do not tell it from infinity, (R,)."""
        column = self.model.column(f"{composition}.k")
        return np.asarray(phi_RF[:, column] >= self.model.bounds.high[column] - 1e-3)


def held_for(points: Mapping[str, Points]) -> dict[str, float]:
    """Common parameters that the sizes of these groups do not determine, and what they are held at."""
    sizes = distinct(np.concatenate([p.log_N for p in points.values()]))
    if sizes > 2:
        return {}
    return {"alpha": HELD_ALPHA} if sizes == 2 else {"alpha": HELD_ALPHA, "A": NO_TERM}


def _keys(law: Law, one: Composition, points: Mapping[str, Points]) -> list[str]:
    sizes = distinct(np.concatenate([points[group].log_N for group in one.groups]))
    return [
        "k",
        *(["p"] if one.varies else []),
        *(["q"] if sizes > 1 else []),
        *(["s"] if law.decays else []),
    ]


def _group(
    law: Law,
    name: str,
    one: Composition | None,
    points: Points,
    names: list[str],
    held: Mapping[str, float],
    centre: tuple[float, float],
) -> Group:
    """A group with the map from the parameters of the model to those of its form."""
    pretrained = one is not None and law.form is not None
    form = law.form() if pretrained and law.form is not None else form_named("separate")
    matrix = np.zeros((len(form.parameters), len(names)))
    offset = np.zeros(len(matrix))
    for key, parameter in COLUMNS.items():
        if key in held:
            offset[form.column(parameter)] = held[key]
        else:
            matrix[form.column(parameter), names.index(key)] = 1.0
    if one is not None and law.form is not None:
        logs = one.log_jets or {}
        apart = logs[name] - float(np.mean(list(logs.values()))) if logs else 0.0
        extra = "log_T" in form.parameters
        scale, sign = (form.column("log_T"), 1.0) if extra else (form.column("log_B"), -1.0)
        entries = {
            "k": (scale, 1.0),
            "p": (scale, sign * apart),
            "q": (form.column("q"), 1.0),
            "s": (form.column("beta"), -logs.get(name, 1.0)),
        }
        for key, (row, value) in entries.items():
            if f"{one.name}.{key}" in names:
                matrix[row, names.index(f"{one.name}.{key}")] += value
    return Group(name, form, points.log_N - centre[0], points.log_D - centre[1], matrix, offset)


def _bounds(names: list[str], law: Law, points: Mapping[str, Points], centre: tuple[float, float]) -> Bounds:
    form = form_named("separate")
    log_D = np.concatenate([p.log_D for p in points.values()])
    lowest = min(float(p.log_L.min()) for p in points.values())
    ends = []
    for name in names:
        composition, _, key = name.rpartition(".")
        if not composition:
            low, high = form.limit(COLUMNS[name])
            ends.append((np.log(FLOOR_BOUND) + lowest if name == "L_inf" else low, high))
        elif key == "k" and law.form is WithExtraData:
            least, most = np.log(LEAST_DATA) + log_D.min(), np.log(MOST_DATA) + log_D.max()
            ends.append((least - centre[1], most - centre[1]))
        elif key == "k":
            ends.append((-20.0, 20.0))
        else:
            ends.append(POWERS)
    low, high = np.array(ends).T
    return Bounds(low, high)
