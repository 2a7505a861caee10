"""Settings of ``python -m jetscale.composition show`` and ``compare``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from jetscale.common.fields import SEED, Range


@dataclass
class Show:
    """What a store has for compositions: classes, jets, and where a single pass ends.

    Attributes
    ----------
    names : experiments with a composition, e.g. [qcd,bsm_all] (default: all)
    own : further ones as own.NAME=COMPOSITION, e.g. 'own.mine={X_bb: 1, QCD_*: 2}'
    dir : folder with JetClassII/ inside
    store : folder of packed stores; default <dir>/store
    """

    names: list[str] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)
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
    downstream : classes of JetClass to align with, e.g. [H4q,Hqql,Tbqq] (default: all ten)
    jets : jets of each composition, and downstream
    draws : half-samples behind each standard error
    seed : of the jets and of the half-samples
    dir : folder with JetClass/ and JetClassII/ inside
    store : folder of packed stores; default <dir>/store
    out : folder to write to
    """

    downstream: list[str] = field(default_factory=lambda: ["*"])
    jets: Annotated[int, Range(10, 10_000_000)] = 4_000
    draws: Annotated[int, Range(2, 100_000)] = 30
    seed: Annotated[int, SEED] = 0
    out: str = "multirun/compositions"
