"""Laws of transfer fitted to a table, and what pretraining is worth in jets.

Shapes: R replicates, P points of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.checks.lack_of_fit import bend_test
from jetscale.analysis.fitting.numbers import Quantity, Scale, same_values, summarise
from jetscale.analysis.joint.data import JointData
from jetscale.analysis.joint.extrapolation import HeldOut, law_held_out
from jetscale.analysis.joint.groups import Composition
from jetscale.analysis.joint.model import JointCertificate, JointFit
from jetscale.analysis.joint.nested import EXPONENTS
from jetscale.analysis.joint.sharing import COLUMNS
from jetscale.analysis.joint.transfer import LAWS, MOST_DATA, TransferModel

Array = NDArray[np.float64]
Draws = dict[str, Array]

EFFECTIVE = "effective_data"
NO_EFFECT = 0.025  # share of replicates at D_T = 0 from which on the lower end is 0; of its bound, none


@dataclass(frozen=True)
class FittedLaw:
    """A law of transfer with its fits.

    Attributes
    ----------
    model, fit, certificate : of the data.
    drawn : of the replicates; None where there are none.
    held_out : squared errors of ln L of held-out points by axis, and the curve each belongs to.
    """

    model: TransferModel
    fit: JointFit
    certificate: JointCertificate
    drawn: JointFit | None
    held_out: dict[str, HeldOut | None]


def fit_laws(data: JointData, scratch: str, compositions: tuple[Composition, ...]) -> dict[str, FittedLaw]:
    """Fit every law to the data and the replicates, and below a cut in D and in N.

    Parameters
    ----------
    data : the groups.
    scratch : name of the one from scratch.
    compositions : of the others.
    """
    points, found = data.points, {}
    for name, law in LAWS.items():
        model = TransferModel.of(law, points, scratch, compositions, data.objective)
        fit, certificate = model.point(points)
        drawn = None
        if data.has_replicates and law.form:
            drawn = model.replicates(*data.drawn(), fit)
        held_out = {axis: law_held_out(model, points, axis, data) for axis in ("D", "N")}
        found[name] = FittedLaw(model, fit, certificate, drawn, held_out)
    return found


def law_entry(data: JointData, fitted: FittedLaw) -> dict[str, Any]:
    """Entry of one law in results.json."""
    model, fit = fitted.model, fitted.fit
    theta = model.theta(fit.phi)
    draws = None if fitted.drawn is None else model.theta(fitted.drawn.phi)
    quantities = {key: _quantity(data, theta, draws, key) for key in theta}
    # with alpha held, A and L_inf are what goes with it
    unknown = {"L_inf", "A", "alpha"} if "alpha" in model.held and "A" not in model.held else set(model.held)
    unknown |= set(fitted.certificate.at_bound)
    flat = fitted.certificate.flat
    unknown |= set(COLUMNS) if flat else set()
    reported = {
        name: Quantity(None) if name in unknown else quantities[parameter]
        for name, parameter in COLUMNS.items()
    }
    of = {}
    for one in model.compositions if model.law.form else ():
        keys = ("k", "p", "q", *(["s"] if model.law.decays else []))
        refused = refusals(model, one, fitted)
        of[one.name] = {
            key: Quantity(None)
            if key in refused
            else quantities[f"{one.name}.{'log_k' if key == 'k' else key}"]
            for key in keys
        } | {"refused": refused}
    residual = np.concatenate(
        [p.log_L - model.model.fitted(fit.phi)[name][0] for name, p in data.points.items()]
    )
    return {
        "formula": model.law.formula,
        "source": model.law.source,
        "parameters": reported,
        "held": model.held,
        "compositions": of,
        "theta": {} if flat else {key: float(value[0]) for key, value in theta.items()},
        "rms": None if flat else float(np.sqrt((residual**2).mean())),
        "objective": float(fit.objective[0]),
        "parameters_count": len(model.model.names),
        "certificate": fitted.certificate.to_json(),
        "held_out": {axis: None if one is None else one.to_json() for axis, one in fitted.held_out.items()},
        "lack_of_fit": dict.fromkeys(data.tasks) if flat else _lack_of_fit(data, fitted),
    }


def _quantity(data: JointData, theta: Draws, draws: Draws | None, key: str) -> Quantity:
    """A parameter; of a logarithm the number itself."""
    is_log = key.rpartition(".")[2].startswith("log_")
    to = np.exp if is_log else np.asarray
    drawn = None if draws is None else to(draws[key])
    exponent = key in ("alpha", "beta")
    scale: Scale = "log" if is_log or exponent else "linear"
    return summarise(float(to(theta[key])[0]), drawn, data.method, data.dof, scale, data.levels)


def refusals(model: TransferModel, one: Composition, fitted: FittedLaw) -> dict[str, str]:
    """Parameters of a composition that the data do not determine, and why."""
    found = {}
    if not model.has(one.name, "p"):
        if one.log_jets is None:
            why = "the table does not say how many jets each run was pretrained on (column pretrain_jets)"
        else:
            jets = next(iter(one.log_jets.values()))
            why = f"every run was pretrained on the same {np.exp(jets):,.0f} jets; two numbers are needed"
        found["p"] = why
        found["k"] = "needs p: only k D_pre^p is known, in D_T" if model.law.name == EFFECTIVE else "needs p"
    if not model.has(one.name, "q"):
        found["q"] = "runs of one size only"
    if model.law.decays and one.log_jets is None:
        found["s"] = "needs the jets of pretraining"
    unknown = undetermined(fitted, one)
    if unknown:
        found |= dict.fromkeys(("k", "p", "q"), unknown)
    elif model.law.name == EFFECTIVE and model.no_data(fitted.fit.phi, one.name)[0]:
        found |= dict.fromkeys(("k", "p", "q"), "no effect of pretraining is seen: D_T is 0")
    return found


def undetermined(fitted: FittedLaw, one: Composition) -> str:
    """Why the law does not say what pretraining on a composition is worth; "" where it does."""
    bounded = sorted(EXPONENTS & set(fitted.certificate.at_bound))
    if not fitted.certificate.converged:
        return "the law of transfer did not converge"
    if fitted.certificate.flat:
        return fitted.certificate.told_flat()
    if bounded:
        return f"{' and '.join(bounded)} at a bound: the losses do not fall with N and D as the law does"
    if fitted.model.law.name == EFFECTIVE and fitted.model.out_of_reach(fitted.fit.phi, one.name)[0]:
        return (
            f"its losses do not fall with D: D_T is at least {MOST_DATA:,.0f} times the largest D, and cannot"
            " be told from infinity"
        )
    return ""


def _lack_of_fit(data: JointData, fitted: FittedLaw) -> dict[str, Any]:
    """Bends that the law leaves, by group; None where they cannot be judged."""
    surfaces = fitted.model.model.surfaces(fitted.fit.phi)
    found: dict[str, Any] = {}
    drawn = None if fitted.drawn is None else fitted.model.model.surfaces(fitted.drawn.phi)
    log_L = data.drawn()[0] if data.has_replicates else {}
    for name, task in data.tasks.items():
        c, regular = task.curves, task.regular
        x, y, surface = c.log_N[regular], c.log_D[regular], surfaces[name]
        of_replicates, dof = None, np.inf
        if c.is_curve:
            if drawn is None or data.method == "runs":
                found[name] = None
                continue
            of_replicates, dof = log_L[name][:, regular] - drawn[name].log_loss(x, y), data.dof
        residual = task.log_L_P[regular] - surface.log_loss(x, y)[0]
        weight = None if c.weight is None else c.weight[regular]
        found[name] = bend_test(surface, x, y, residual, of_replicates, dof, weight)
    return found


def worth_entry(
    data: JointData, fitted: FittedLaw, one: Composition, entry: Mapping[str, Any], sample: str
) -> dict[str, Any]:
    """What pretraining on one composition is worth: D_T in jets by width and D_pre, and its powers.

    Parameters
    ----------
    data : the groups.
    fitted : the law of effective data.
    one : the composition.
    entry : its parameters, from `law_entry`.
    sample : what D counts.
    """
    rows: list[dict[str, Any]] = []
    for group, jets in one.groups.items():
        dims = data.facts[group].dims
        for log_N in sorted(set(same_values(data.points[group].log_N).tolist())):
            N = float(np.exp(log_N))
            at: dict[str, Any] = {"dim": _dim(dims, N)} if dims else {}
            quantity = _data_transferred(data, fitted, one, group, log_N)
            over = Quantity(None)
            if jets and quantity.value is not None:
                over = Quantity(
                    quantity.value / jets,
                    None if quantity.sd is None else quantity.sd / jets,
                    None if quantity.ci95 is None else (quantity.ci95[0] / jets, quantity.ci95[1] / jets),
                )
            rows.append(
                at
                | {
                    "n_params": N,
                    "group": group,
                    "pretrain_jets": jets,
                    "D_T": quantity,
                    "D_T_over_pretrain": over,
                }
            )
    most = max((row["pretrain_jets"] or 0.0 for row in rows), default=0.0)
    chosen = [row for row in rows if (row["pretrain_jets"] or 0.0) == most]
    middle = chosen[len(chosen) // 2]
    longest = float(np.exp(max(p.log_D.max() for p in data.points.values())))
    return {
        "law": EFFECTIVE,
        "groups": one.groups,
        "D_T": middle["D_T"],
        "at": {key: middle[key] for key in ("dim", "n_params", "pretrain_jets") if key in middle},
        "by_width": rows,
        **{key: entry[key] for key in ("k", "p", "q")},
        "refused": entry["refused"],
        "sentence": _sentence(one.name, middle, f"{sample}s", longest, undetermined(fitted, one)),
    }


def _data_transferred(
    data: JointData, fitted: FittedLaw, one: Composition, group: str, log_N: float
) -> Quantity:
    """D_T at one size; 0 where pretraining has no effect, an interval from 0 where it may have none.

    No interval where more replicates than its upper tail leave D_T without a limit.
    """
    model = fitted.model
    if undetermined(fitted, one):
        return Quantity(None)
    value = float(np.exp(model.log_data(fitted.fit.phi, group, log_N)[0]))
    nothing = bool(model.no_data(fitted.fit.phi, one.name)[0])
    if fitted.drawn is None:
        return Quantity(0.0 if nothing else value)
    draws = np.exp(model.log_data(fitted.drawn.phi, group, log_N))
    none = model.no_data(fitted.drawn.phi, one.name)
    if nothing:
        return Quantity(0.0, float(draws.std(ddof=1)), (0.0, float(np.percentile(draws, 97.5))))
    draws = np.where(model.out_of_reach(fitted.drawn.phi, one.name), np.inf, draws)
    found = summarise(value, draws, data.method, data.dof, "log", data.levels)
    if found.ci95 is not None and none.mean() > NO_EFFECT:
        return Quantity(value, found.sd, (0.0, max(found.ci95[1], float(np.percentile(draws, 97.5)))))
    return found


def _dim(dims: Mapping[float, float], N: float) -> float:
    return dims[min(dims, key=lambda known: abs(known / N - 1))]


def _sentence(name: str, row: Mapping[str, Any], sample: str, longest: float, unknown: str) -> str:
    """The answer in one line."""
    if unknown:
        return f"what pretraining on {name} is worth is not known: {unknown}"
    size = f"width {row['dim']:g}" if "dim" in row else f"N = {row['n_params']:.3g}"
    quantity: Quantity = row["D_T"]
    assert quantity.value is not None
    spent = f" (pretrained on {row['pretrain_jets']:,.0f})" if row["pretrain_jets"] else ""
    if quantity.ci95 is None:
        return f"pretraining on {name} is worth {_round(quantity.value)} {sample} at {size}{spent}"
    low, high = quantity.ci95
    if low <= 0:
        return f"pretraining on {name} is worth at most {_round(high)} {sample} at {size}{spent}"
    beyond = ", beyond the longest curve" if quantity.value > longest else ""
    ends = f"[{_round(low)}, {_round(high)}]"
    return f"pretraining on {name} is worth {_round(quantity.value)} {ends} {sample} at {size}{spent}{beyond}"


def _round(value: float) -> str:
    """Two significant digits, with thousands separated."""
    return f"{float(f'{value:.2g}'):,.0f}"
