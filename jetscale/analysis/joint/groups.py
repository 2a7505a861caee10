"""Which groups of a table are one composition, pretrained on by different numbers of jets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jetscale.analysis.joint.data import JointData
from jetscale.analysis.tables.loss_table import PRETRAIN_JETS
from jetscale.analysis.tables.variants import REFERENCE, split_name

SAME_JETS = 1.001  # largest over smallest D_pre up to which it is one
PRETRAINED = ("pretrain.", f"{PRETRAIN_JETS}=")  # settings of a variant that are its pretraining


@dataclass(frozen=True)
class Composition:
    """One composition, pretrained on by one or several groups.

    Attributes
    ----------
    name : of the composition.
    groups : group to the jets it was pretrained on; None where the table does not say.
    """

    name: str
    groups: dict[str, float | None]

    @property
    def log_jets(self) -> dict[str, float] | None:
        """Ln D_pre by group; None where one is not known."""
        known = {group: float(np.log(jets)) for group, jets in self.groups.items() if jets}
        return known if len(known) == len(self.groups) else None

    @property
    def varies(self) -> bool:
        """Whether there are two D_pre or more."""
        logs = self.log_jets
        return logs is not None and max(logs.values()) - min(logs.values()) > np.log(SAME_JETS)


def compositions_of(data: JointData) -> tuple[str | None, tuple[Composition, ...], str]:
    """Find the group from scratch and the compositions of the others.

    Groups of one composition differ in their pretraining jets only: ``name@25000`` and ``name@100000``, or
    variants of one subset in ``pretrain`` settings.

    Returns
    -------
    Name of scratch, the compositions, and why there are none ("" where there are).
    """
    jets = {name: data.facts[name].pretrain_jets for name in data.names}
    scratch = [
        name
        for name in data.names
        if jets[name] == 0 or (jets[name] is None and split_name(name)[0] == REFERENCE)
    ]
    if not scratch:
        return None, (), f"no runs from scratch (a subset called {REFERENCE}, or 0 jets of pretraining)"
    if len(scratch) > 1:
        return (
            None,
            (),
            f"{len(scratch)} groups from scratch ({', '.join(scratch)}): choose one with where=...",
        )
    found: dict[str, dict[str, float | None]] = {}
    for name in data.names:
        if name != scratch[0]:
            subset, variant = split_name(name)
            base = subset.partition("@")[0]
            if variant and not all(part.startswith(PRETRAINED) for part in variant.split(", ")):
                base = name
            found.setdefault(base, {})[name] = jets[name]
    if not found:
        return None, (), "no pretrained group"
    return scratch[0], tuple(Composition(name, groups) for name, groups in found.items()), ""
