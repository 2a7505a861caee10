"""Truth labels on event records built by hand: every published label from the objects its name lists."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from jetscale.jets.datasets.jetclass2 import BUCKET_LABELS, JETCLASS2_LABELS
from jetscale.simulate import truth_jetclass, truth_jetclass2
from jetscale.simulate.jetfinding import Jets
from jetscale.simulate.pythia import Events

INSIDE, OUTSIDE = (0.1, 0.2), (1.5, 2.5)
CODES = {"b": 5, "c": 4, "s": 3, "q": 1, "g": 21, "e": 11, "m": 13}
TAU_DECAYS = {"taue": (16, 11, 12), "taum": (16, 13, 14), "tauh": (16, 211, 111)}


@dataclass
class Record:
    """One event, entry by entry, in Pythia's manner: daughters in consecutive rows."""

    rows: list[dict[str, float]] = field(default_factory=lambda: [{"pid": 90}])

    def add(
        self, pid: int, where: tuple[float, float] = INSIDE, *, pt: float = 100, status: int = -23
    ) -> int:
        self.rows.append({"pid": pid, "eta": where[0], "phi": where[1], "pt": pt, "status": status})
        return len(self.rows) - 1

    def decay(self, mother: int, *products: tuple[int, tuple[float, float]]) -> list[int]:
        made = [self.add(pid, where) for pid, where in products]
        self.rows[mother] |= {"daughter1": made[0], "daughter2": made[-1]}
        return made

    def events(self) -> Events:
        def column(name: str, default: float, kind: type = float) -> np.ndarray:
            return np.array([row.get(name, default) for row in self.rows], kind)

        n = len(self.rows)
        pt, eta, phi = column("pt", 1), column("eta", 0), column("phi", 0)
        zero, none = np.zeros(n), np.full(n, -1)
        return Events(
            np.array([0, n]), np.zeros(n, np.int64), column("pid", 0, int), column("status", -23, int),
            none, none,
            column("daughter1", -1, int), column("daughter2", -1, int), pt * np.cos(phi), pt * np.sin(phi),
            pt * np.sinh(eta), pt * np.cosh(eta), zero, zero, zero, zero, zero, zero,
        )  # fmt: skip


def one_jet() -> Jets:
    at = [np.array([value]) for value in (0.15, 0.15)]
    return Jets(np.array([0]), np.array([600.0]), *at, np.array([700.0]), np.array([0, 1]), np.array([0]))


def add_leg(record: Record, mother: int, leg: tuple[str, ...], *, flip: bool) -> None:
    """Let `mother` decay to a pair: letters, upper case outside the jet; v a neutrino; taue, taum, tauh."""
    products: list[tuple[int, tuple[float, float]]] = []
    for name in leg:
        code = 15 if name.startswith("tau") else 12 if name == "v" and leg[0] == "e" else 0
        code = code or (14 if name == "v" and leg[0] == "m" else 16 if name == "v" else CODES[name.lower()])
        products.append((code, OUTSIDE if name.isupper() else INSIDE))
    if flip:
        products.reverse()
    rows = record.decay(mother, *products)
    for row, name in zip(rows, reversed(leg) if flip else leg, strict=True):
        if name.startswith("tau"):
            copy = record.decay(row, (15, INSIDE))[0]
            record.decay(copy, *((code, INSIDE) for code in TAU_DECAYS[name]))


def split_taus(ending: str) -> tuple[str, str]:
    """``tauhtaue`` to (tauh, taue), ``tauev`` to (taue, v), ``ev`` to (e, v)."""
    if ending.startswith("tauhtau"):
        return ending[:4], ending[4:]
    return ending[:-1], ending[-1]


def legs(text: str) -> list[tuple[str, ...]]:
    """A pair, or two pairs, that the label's rules must name `text`."""
    for ending in sorted(truth_jetclass2.ENDINGS[1:], key=len, reverse=True):
        if text.endswith(ending):
            pair, letters = split_taus(ending), text.removesuffix(ending)
            break
    else:
        pair, letters = None, text
    if pair is None:
        four = letters + letters[-1].upper() * (len(letters) % 2)  # a partner outside the jet
        if letters in ("bee", "cee", "see", "qee", "gee", "bmm", "cmm", "smm", "qmm", "gmm"):
            four = letters[0] + letters[0].upper() + letters[1:]
        return [tuple(four[i : i + 2]) for i in range(0, len(four), 2)]
    if not letters:
        return [pair]
    return [(letters[0], letters[1] if len(letters) == 2 else letters[0].upper()), pair]


def label_of(pairs: list[tuple[str, ...]], *, flip: bool) -> str | None:
    record = Record()
    first = record.add(25)
    x = record.decay(first, (25, INSIDE))[0]
    if len(pairs) == 1:
        bucket = "Res2P"
        add_leg(record, x, pairs[0], flip=flip)
    else:
        bucket = "Res34P"
        ys = record.decay(x, *[(37, INSIDE), (-37, INSIDE)])
        for y, pair in zip(ys, reversed(pairs) if flip else pairs, strict=True):
            add_leg(record, y, pair, flip=flip)
    found = truth_jetclass2.match(bucket, record.events(), one_jet(), (25,)).label[0]
    return None if found == -1 else JETCLASS2_LABELS[found]


@pytest.mark.parametrize("flip", [False, True])
def test_every_resonant_label_is_reached_by_the_objects_it_names(flip: bool) -> None:
    for bucket, prefix in (("Res2P", "X_"), ("Res34P", "X_YY_")):
        for name in BUCKET_LABELS[bucket]:
            assert label_of(legs(name.removeprefix(prefix)), flip=flip) == name


@pytest.mark.parametrize(
    "pairs",
    [
        [("b", "B")],
        [("taue", "taum")],
        [("b", "B"), ("c", "C")],
        [("e", "e"), ("m", "m")],
        [("b", "b"), ("taue", "taue")],
        [("b", "C"), ("e", "v")],
        [("b", "c"), ("E", "v")],
    ],
)
def test_what_the_rules_leave_unlabelled(pairs: list[tuple[str, ...]]) -> None:
    for flip in (False, True):
        assert label_of(pairs, flip=flip) is None


def test_every_qcd_label_is_reached() -> None:
    for name in BUCKET_LABELS["QCD"]:
        record = Record()
        letters = name.removeprefix("QCD_").replace("light", "")
        for letter in letters:
            record.add(-CODES[letter], status=-71)
        for pid, where, pt, status in (
            (5, OUTSIDE, 50, 71),
            (5, INSIDE, 9.9, 71),
            (5, INSIDE, 50, 72),
            (2, INSIDE, 50, 71),
        ):
            record.add(pid, where, pt=pt, status=-status)
        found = truth_jetclass2.match("QCD", record.events(), one_jet(), ())
        assert JETCLASS2_LABELS[found.label[0]] == name
        assert np.diff(found.partons[0]) == len(letters) + 1  # the light quark is a parton too
    record = Record()
    for _ in range(4):
        record.add(4, status=-71)
    assert JETCLASS2_LABELS[truth_jetclass2.match("QCD", record.events(), one_jet(), ()).label[0]] == "QCD_cc"


def jetclass_code(
    process: str,
    resonance: int,
    products: list[tuple[int, tuple[float, float]]],
    w: dict[int, list[tuple[int, tuple[float, float]]]],
) -> int:
    record = Record()
    copy = record.decay(record.add(resonance), (resonance, INSIDE))[0]
    made = record.decay(copy, *products)
    for index, legs_of_w in w.items():
        boson = record.decay(made[index], (record.rows[made[index]]["pid"], INSIDE))[0]
        for row, (pid, where) in zip(record.decay(boson, *legs_of_w), legs_of_w, strict=True):
            if abs(pid) in (11, 13):
                record.decay(row, (pid, where), (22, INSIDE))
    return int(truth_jetclass.match(process, record.events(), one_jet()).code[0])


IN, OUT = INSIDE, OUTSIDE
HADRONIC, CHARMED = [(2, IN), (-1, IN)], [(4, IN), (-3, IN)]
ELECTRONIC, MUONIC = [(-11, IN), (12, OUT)], [(14, OUT), (-13, IN)]


@pytest.mark.parametrize(
    ("process", "code", "resonance", "products", "w"),
    [
        ("HToBB", 41, 25, [(5, IN), (-5, IN)], {}),
        ("HToBB", 41, 36, [(5, IN), (-5, IN)], {}),
        ("HToBB", 0, 25, [(5, IN), (-5, OUT)], {}),
        ("HToCC", 42, 25, [(4, IN), (-4, IN)], {}),
        ("HToGG", 44, 25, [(21, IN), (21, IN)], {}),
        ("ZToQQ", 31, 23, [(5, IN), (-5, IN)], {}),
        ("ZToQQ", 32, 23, [(-4, IN), (4, IN)], {}),
        ("ZToQQ", 33, 23, [(1, IN), (-1, IN)], {}),
        ("WToQQ", 22, 24, [(2, IN), (-3, IN)], {}),
        ("WToQQ", 21, -24, [(-4, IN), (3, IN)], {}),
        ("WToQQ", 0, 24, [(2, OUT), (-3, IN)], {}),
        ("HToWW4Q", 45, 25, [(24, IN), (-24, IN)], {0: HADRONIC, 1: CHARMED}),
        ("HToWW4Q", 0, 25, [(24, IN), (-24, IN)], {0: HADRONIC, 1: [(4, IN), (-3, OUT)]}),
        ("HToWW2Q1L", 46, 25, [(24, IN), (-24, IN)], {0: HADRONIC, 1: ELECTRONIC}),
        ("HToWW2Q1L", 46, 25, [(24, IN), (-24, IN)], {0: MUONIC, 1: CHARMED}),
        ("HToWW2Q1L", 0, 25, [(24, IN), (-24, IN)], {0: [(-11, OUT), (12, IN)], 1: CHARMED}),
        ("TTBar", 12, 6, [(24, IN), (5, IN)], {0: HADRONIC}),
        ("TTBar", 11, -6, [(-24, IN), (-5, IN)], {0: CHARMED}),
        ("TTBar", 0, 6, [(24, IN), (5, OUT)], {0: HADRONIC}),
        ("TTBarLep", 15, 6, [(24, IN), (5, IN)], {0: ELECTRONIC}),
        ("TTBarLep", 16, 6, [(5, IN), (24, IN)], {1: MUONIC}),
        ("TTBarLep", 0, 6, [(24, IN), (5, OUT)], {0: ELECTRONIC}),
    ],
)  # fmt: skip
def test_jetclass_codes(
    process: str,
    code: int,
    resonance: int,
    products: list[tuple[int, tuple[float, float]]],
    w: dict[int, list[tuple[int, tuple[float, float]]]],
) -> None:
    assert jetclass_code(process, resonance, products, w) == code


def test_the_first_matching_resonance_wins_and_others_are_tried() -> None:
    record = Record()
    far, near = record.add(25, OUTSIDE), record.add(25)
    record.decay(far, (5, OUTSIDE), (-5, OUTSIDE))
    record.decay(near, (4, INSIDE), (-4, INSIDE))
    found = truth_jetclass.match("HToCC", record.events(), one_jet())
    assert found.code.tolist() == [42]
    assert found.resonance.tolist() == [near]
