"""Truths and questions about what pretraining is worth, for the simulated studies of `coverage_joint`.

Three truths of scratch and two compositions with two D_pre each: extra data (the law of effective data), the
same with powers for which a part of a total budget belongs to pretraining, and a gain that decays with D.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.answers.total_budget import Price, best_split
from jetscale.analysis.answers.total_plan import plan_of
from jetscale.analysis.answers.transfer_laws import Ranges, Transfer, law_of
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.joint.data import JointData
from jetscale.analysis.joint.extrapolation import separate_held_out, verdict
from jetscale.analysis.joint.groups import Composition
from jetscale.analysis.joint.transfer import LAWS, TransferModel
from jetscale.analysis.joint.transfer_forms import Tilted, WithExtraData
from jetscale.analysis.joint.worth import EFFECTIVE, FittedLaw, fit_laws, law_entry, worth_entry

Array = NDArray[np.float64]
Record = dict[str, Any]
Powers = dict[str, tuple[float, ...]]

TRUE = {"E": 0.5, "A": 25.0, "B": 16.0, "alpha": 0.45, "beta": 0.30}
COMMON = ("L_inf", "A", "B", "alpha", "beta")  # names of TRUE's values in results.json
COMPOSITIONS = {
    "qcd": {"qcd": 25_000.0, "qcd_res2p": 100_000.0},
    "bsm": {"qcd_res34p": 25_000.0, "bsm_all": 100_000.0},
}
POWERS: Powers = {"qcd": (0.05, 1.0, 0.1), "bsm": (3.0, 0.6, 0.25)}  # k, p, q of D_T = k D_pre^p N^q
PAID: Powers = {"qcd": (60.0, 0.5, 0.1), "bsm": (6.0, 0.75, 0.1)}  # the same, where pretraining pays
DECAY: Powers = {"qcd": (0.86, 0.03, 0.01, 0.004), "bsm": (0.62, 0.05, 0.02, 0.008)}  # k, p, q, s
BUDGET, PRICE = 3e12, Price(simulate=1e6, pretrain=240.0, finetune=240.0)
OPTIMUM = ("N", "D_pre", "D", "loss", "against_scratch")  # fields of a split


def with_extra_data(powers: Powers) -> dict[str, Surfaces]:
    """B / (D + k D_pre^p N^q)^beta."""
    found = {"scratch": Surfaces.single(**TRUE)}
    for name, groups in COMPOSITIONS.items():
        k, p, q = powers[name]
        for group, jets in groups.items():
            common = [np.log(TRUE["A"]), np.log(TRUE["B"]), np.log(TRUE["E"]), TRUE["alpha"], TRUE["beta"]]
            theta = np.array([[*common, np.log(k) + p * np.log(jets), q]])
            found[group] = Surfaces(theta, WithExtraData())
    return found


def with_decaying_gain() -> dict[str, Surfaces]:
    """K B / (D_pre^p N^q D^(beta - s ln D_pre))."""
    found = {"scratch": Surfaces.single(**TRUE)}
    for name, groups in COMPOSITIONS.items():
        k, p, q, s = DECAY[name]
        for group, jets in groups.items():
            log_B = np.log(k * TRUE["B"]) - p * np.log(jets)
            beta = TRUE["beta"] - s * np.log(jets)
            theta = np.array([[np.log(TRUE["A"]), log_B, np.log(TRUE["E"]), TRUE["alpha"], beta, q]])
            found[group] = Surfaces(theta, Tilted())
    return found


def compositions() -> tuple[Composition, ...]:
    """Of all truths."""
    return tuple(Composition(name, dict(groups)) for name, groups in COMPOSITIONS.items())


def ask_worth(data: JointData) -> Record:
    """D_T and its powers."""
    model = TransferModel.of(LAWS[EFFECTIVE], data.points, "scratch", compositions(), data.objective)
    fit, certificate = model.point(data.points)
    law = FittedLaw(model, fit, certificate, model.replicates(*data.drawn(), fit), {})
    entry = law_entry(data, law)
    found: dict[str, Any] = {key: entry["parameters"][key].ci95 for key in COMMON}
    for one in compositions():
        worth = worth_entry(data, law, one, entry["compositions"][one.name], "jet")
        found |= {f"{one.name} {key}": worth[key].ci95 for key in ("k", "p", "q", "D_T")}
    return {"intervals": found, "bends": {k: v and v["bend_rms"] for k, v in entry["lack_of_fit"].items()}}


def ask_total(data: JointData) -> Record:
    """The optimum of a total budget."""
    model = TransferModel.of(LAWS[EFFECTIVE], data.points, "scratch", compositions(), data.objective)
    fit, _ = model.point(data.points)
    replicates = model.replicates(*data.drawn(), fit)
    theta, drawn = (model.theta(one.phi) for one in (fit, replicates))
    transfer = Transfer(
        laws={name: (law_of(theta, name), law_of(drawn, name)) for name in COMPOSITIONS},
        scratch=(law_of(theta, None), law_of(drawn, None)),
        ranges=dict.fromkeys(
            COMPOSITIONS, Ranges((2.9e3, 1.6e5), (2.5e4, 1e5), (1e3, 4.6e5))
        ),  # for flags alone
        method=data.method,
        dof=data.dof,
        price=PRICE.finetune,
        most=BUDGET,
        sample="jet",
    )
    splits = plan_of(transfer, BUDGET, PRICE, list(COMPOSITIONS)).splits
    found = {}
    for name, split in splits.items():
        for key in OPTIMUM:
            quantity = getattr(split, key)
            if quantity is not None:
                found[f"{name} {key}"] = quantity.ci95
    return {"intervals": found}


def ask_decay(data: JointData) -> Record:
    """Parameters of the decaying law, and which law of transfer is found."""
    fitted = fit_laws(data, "scratch", compositions())
    entry = law_entry(data, fitted["decaying"])
    found = {key: entry["parameters"][key].ci95 for key in COMMON}
    for name, own in entry["compositions"].items():
        found |= {f"{name} {key}": own[key].ci95 for key in ("k", "p", "q", "s")}
    return {"intervals": found, **_chosen(data, fitted)}


def _chosen(data: JointData, fitted: dict[str, FittedLaw]) -> Record:
    """Law with the lowest held-out error, and those that are surely worse at larger D or at larger N."""
    held = {name: dict(law.held_out) for name, law in fitted.items()}
    held["separate"] = {axis: separate_held_out(data, axis) for axis in ("D", "N")}
    found = verdict(held)
    worse = sorted({name for one in found.compared for name in one.worse})
    return {"best": found.best, "worse": worse, "verdict": str(found)}


def truths_of_worth(sizes: Array) -> dict[str, float]:
    """True values for `ask_worth`; `sizes`: N of the design."""
    found = dict(zip(COMMON, TRUE.values(), strict=True))
    for name, (k, p, q) in POWERS.items():
        found |= {f"{name} k": k, f"{name} p": p, f"{name} q": q}
        found[f"{name} D_T"] = float(k * 100_000.0**p * sizes[len(sizes) // 2] ** q)
    return found


def truths_of_decay() -> dict[str, float]:
    """True values for `ask_decay`."""
    found = dict(zip(COMMON, TRUE.values(), strict=True))
    for name, values in DECAY.items():
        found |= {f"{name} {key}": value for key, value in zip("kpqs", values, strict=True)}
    return found


def truths_of_total() -> dict[str, float]:
    """True values for `ask_total`."""
    theta = {key: np.log(TRUE[key[4:]]) for key in ("log_A", "log_B", "log_E")}
    theta |= {key: TRUE[key] for key in ("alpha", "beta")}
    for name, (k, p, q) in PAID.items():
        theta |= {f"{name}.log_k": np.log(k), f"{name}.p": p, f"{name}.q": q}
    found, losses = {}, {}
    for name in ("scratch", *PAID):
        law = law_of(theta, None if name == "scratch" else name)
        best = best_split(law, BUDGET, PRICE, pretraining=name != "scratch", replicates=1)
        losses[name] = float(np.exp(best.log_loss[0]))
        found |= {f"{name} N": float(best.N[0]), f"{name} D": float(best.D[0]), f"{name} loss": losses[name]}
        if name != "scratch":
            found[f"{name} D_pre"] = float(best.D_pre[0])
            found[f"{name} against_scratch"] = losses[name] / losses["scratch"]
    return found
