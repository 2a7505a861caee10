"""Settings of ``python -m jetscale.composition show`` and ``compare``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from jetscale.common.fields import SEED, Range
from jetscale.common.registry import Registered
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.settings import FEATURES

LEAST_JETS = 40
"""Fewest jets of a sample that the classifier behind the AUC can use. A leaf of its trees has at least 20
jets, and a fifth of the jets is left out to test on: below 25 jets no tree has a branch, and the AUC is 0.5
for any two samples. Two normal distributions that are one standard deviation apart in one of seven
observables have an AUC of 0.61 with 25 jets each, 0.63 with 30, and 0.70 with 40 as with 200 (means of eight
draws)."""


@dataclass
class Show:
    """What a store has for compositions: classes, jets, and where a single pass ends.

    Attributes
    ----------
    names : experiments with a composition, e.g. [qcd,bsm_all] (default: all)
    own : further ones as own.NAME=COMPOSITION, e.g. 'own.mine={X_bb: 1, QCD_*: 2}'
    dataset : of the compositions
    features : of its store: paper, part17, or kinematics where a dataset has no displacement and identity
    dir : folder with the dataset's folder inside, for JetClass-II JetClassII/
    store : folder of packed stores; default <dir>/store
    """

    names: list[str] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)
    dataset: Annotated[str, Registered(DATASETS)] = "jetclass2"
    features: Annotated[str, FEATURES] = "paper"
    dir: str = "data"
    store: str | None = None


@dataclass
class Compare(Show):
    """Measure the diversity of compositions and their alignment with the downstream jets.

    Writes compare.json, and the figures map and observables.

    Attributes
    ----------
    names : experiments with a composition, e.g. [qcd,bsm_all] (default: all)
    own : further ones as own.NAME=COMPOSITION, e.g. 'own.mine={X_bb: 1, QCD_*: 2}'
    downstream : downstream classes to align with, e.g. [H4q,Hqql,Tbqq] (default: all)
    downstream_dataset : dataset of the downstream jets
    jets : jets of each composition, and downstream; at least 40, since the AUC's classifier needs them
    draws : half-samples behind each standard error
    seed : of the jets and of the half-samples
    dataset : of the compositions
    features : of both stores: paper, part17, or kinematics where a dataset has no displacement and identity
    dir : folder with the folders of both datasets inside, JetClass/ and JetClassII/
    store : folder of packed stores; default <dir>/store
    out : folder to write to
    """

    downstream: list[str] = field(default_factory=lambda: ["*"])
    downstream_dataset: Annotated[str, Registered(DATASETS)] = "jetclass"
    jets: Annotated[int, Range(LEAST_JETS, 10_000_000)] = 4_000
    draws: Annotated[int, Range(2, 100_000)] = 30
    seed: Annotated[int, SEED] = 0
    out: str = "multirun/compositions"
