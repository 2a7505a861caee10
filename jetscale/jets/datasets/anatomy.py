"""What a class name says of its jets: prongs and flavours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jetscale.jets.datasets.labels import JETCLASS2_LABELS, JETCLASS_LABELS

_PARTON = re.compile("tauh|taue|taum|light|[bcsqgemv]")
_TAU = frozenset({"tauh", "taue", "taum"})


@dataclass(frozen=True)
class Anatomy:
    """Prongs and flavours of a class.

    Attributes
    ----------
    prongs : matched decay products other than neutrinos; 1 for QCD, which has no resonance
    flavours : kinds of parton or lepton that the name tells: b c s q (u or d) g e m tau, and light for
        QCD jets without b, c, s. JetClass names leave most quarks open: Wqq has none, Tbqq has b
    """

    prongs: int
    flavours: frozenset[str]


def _anatomy(name: str) -> Anatomy:
    """Anatomy of a JetClass-II class from its published name."""
    bucket, _, partons = name.rpartition("_")
    found = _PARTON.findall(partons)
    flavours = frozenset("tau" if parton in _TAU else parton for parton in found if parton != "v")
    return Anatomy(1 if bucket == "QCD" else sum(parton != "v" for parton in found), flavours)


_JETCLASS = {
    "QCD": Anatomy(1, frozenset()),
    "Hbb": Anatomy(2, frozenset("b")),
    "Hcc": Anatomy(2, frozenset("c")),
    "Hgg": Anatomy(2, frozenset("g")),
    "H4q": Anatomy(4, frozenset()),
    "Hqql": Anatomy(3, frozenset()),
    "Zqq": Anatomy(2, frozenset()),
    "Wqq": Anatomy(2, frozenset()),
    "Tbqq": Anatomy(3, frozenset("b")),
    "Tbl": Anatomy(2, frozenset("b")),
}

ANATOMY: dict[str, Anatomy] = {
    **{name: _anatomy(name) for name in JETCLASS2_LABELS},
    **{name: _JETCLASS[name] for name in JETCLASS_LABELS},
}
"""By class name, of both datasets and every label map (JetClass's QCD is also JetClass-II's as one class)."""

FLAVOURS = tuple(sorted(frozenset().union(*(anatomy.flavours for anatomy in ANATOMY.values()))))
"""All flavours that a composition can ask for."""
