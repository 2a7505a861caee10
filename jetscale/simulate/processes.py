"""Settings of Pythia for each JetClass process and JetClass-II bucket.

The settings and their sources are in docs/simulation.md. Published samples come from MadGraph's V + H, V V
and t t~ (JetClass) and h h, h+ h-, h1 h1 (JetClass-II). The closest processes of Pythia with two labelled
jets an event are A H, H+ H-, W W, Z Z and t t~, where A becomes a second H of the same mass, width and
decays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jetscale.simulate.arrays import Floats

Channel = tuple[float, int, int]
"""Branching ratio and the PDG codes of the two decay products."""

JETCLASS_PTHAT = 480.0
"""GeV; the published matrix elements ask for pT > 450, the jets for 500."""
QUARKS = "1 2 3 4 5"
NEUTRINOS = "12 14 16"

MASS_X = (15.0, 500.0)
"""GeV, the published range of the resonance mass."""
MASS_SPREAD = 0.1
"""A point's resonance mass is drawn evenly from `MASS_X`; its events spread by this share around it."""
PTHAT_X = np.geomspace(100.0, 2499.0, 50)
"""GeV, the published grid of the resonances' least transverse momentum."""
PTHAT_QCD = np.geomspace(100.0, 5000.0, 200)
"""GeV, the published grid of HardQCD's least transverse momentum."""
CHARGED_SHARE = 144 / (192 + 144)
"""Share of charged X among the published Res2P jobs."""
MASS_RATIO_Y = (0.05, 0.7)
"""m_Y / m_X is drawn evenly from here; above one half at least one Y is off shell."""
WIDTH_RATIO_Y = (1e-2, 5e-2)
"""Width of Y over its mass, drawn evenly in its logarithm. Below one per cent Pythia finds no off-shell Y."""
MASS_MIN_Y = 1.0
"""GeV; lightest off-shell Y. The published 1e-6 cannot hadronise."""

NEUTRAL_CHANNELS: tuple[Channel, ...] = (
    (0.125, 5, -5),
    (0.125, 4, -4),
    (0.125, 3, -3),
    (0.0625, 2, -2),
    (0.0625, 1, -1),
    (0.125, 21, 21),
    (0.0625, 11, -11),
    (0.0625, 13, -13),
    (0.25, 15, -15),
)
CHARGED_CHANNELS: tuple[Channel, ...] = tuple((1 / 6, up, -down) for up in (2, 4) for down in (1, 3, 5))
CHARGED_CHANNELS_Y: tuple[Channel, ...] = (
    *((0.625 / 6, up, down) for _, up, down in CHARGED_CHANNELS),
    (0.0625, -11, 12),
    (0.0625, -13, 14),
    (0.25, -15, 16),
)


@dataclass(frozen=True)
class Point:
    """A process with all its parameters.

    Attributes
    ----------
    name : for messages
    settings : Pythia's ``key=value`` lines
    masses : (low, high) in GeV for each absolute PDG code made in the hard process; checked in every batch
    published : PDG code in the published files, and the codes that stand in for it here
    """

    name: str
    settings: tuple[str, ...]
    masses: dict[int, tuple[float, float]] = field(default_factory=dict)
    published: dict[int, tuple[int, ...]] = field(default_factory=dict)


def decays(code: int, channels: Sequence[Channel]) -> list[str]:
    """Settings that replace the decay table of a particle.

    Parameters
    ----------
    code : PDG code of the particle
    channels : branching ratio and the two decay products of each channel

    Returns
    -------
    Pythia's lines; mode 100 keeps the branching ratios at every mass.
    """
    verbs = ["oneChannel", *["addChannel"] * (len(channels) - 1)]
    return [
        f"{code}:{verb}=1 {ratio:.9f} 100 {a} {b}"
        for verb, (ratio, a, b) in zip(verbs, channels, strict=True)
    ]


def resonance(code: int, mass: float, width: float, mass_range: tuple[float, float]) -> list[str]:
    """Settings for mass, width and mass range of a particle, so that no default of Pythia is used.

    Parameters
    ----------
    code : PDG code
    mass, width : GeV
    mass_range : lowest and highest mass, GeV

    Returns
    -------
    Pythia's lines.
    """
    return [
        f"{code}:m0={mass}",
        f"{code}:mWidth={width}",
        f"{code}:mMin={mass_range[0]}",
        f"{code}:mMax={mass_range[1]}",
        f"{code}:doForceWidth=on",
    ]


# ---- JetClass --------------------------------------------------------------------------------------------

_BOSON_MASSES = {"Z": (54.0, 129.0), "W": (49.0, 111.0)}
"""Fifteen widths, MadGraph's cut: without it boosted line shapes reach far off shell."""
_Z_RANGE = ["23:mMin=54", "23:mMax=129"]
_W_RANGE = ["24:mMin=49", "24:mMax=111"]
_HIGGS_RANGE = (124.0, 126.0)
_HIGGS_WIDTH = 0.004


def _higgs_pair(
    channels: Sequence[Channel], extra: Sequence[str] = ()
) -> tuple[list[str], dict[int, tuple[float, float]]]:
    """A H with both at 125 GeV and the same decays, A taking the CP-even angular correlations."""
    lines = ["Higgs:useBSM=on", "HiggsBSM:ffbar2A3H1=on", "HiggsA3:parity=1"]
    for code in (25, 36):
        lines += resonance(code, 125.0, _HIGGS_WIDTH, _HIGGS_RANGE) + decays(code, channels)
    return [*lines, *extra], {25: _HIGGS_RANGE, 36: _HIGGS_RANGE}


def jetclass_points(process: str) -> tuple[Point, ...]:
    """Points that a chunk of a JetClass process uses in turn.

    Raises
    ------
    ValueError
        No such process.
    """
    hadronic_w = ["24:onMode=off", f"24:onIfAny={QUARKS}"]
    if process in ("HToBB", "HToCC", "HToGG"):
        products = {"HToBB": (5, -5), "HToCC": (4, -4), "HToGG": (21, 21)}[process]
        variants = [_higgs_pair([(1.0, *products)])]
    elif process == "HToWW4Q":
        variants = [_higgs_pair([(1.0, 24, -24)], hadronic_w)]
    elif process == "HToWW2Q1L":
        signs = [("Pos", "Neg"), ("Neg", "Pos")]
        variants = [
            _higgs_pair(
                [(1.0, 24, -24)],
                ["24:onMode=off", f"24:on{quarks}IfAny={QUARKS}", f"24:on{leptons}IfAny=11 13"],
            )
            for quarks, leptons in signs
        ]
    elif process == "ZToQQ":
        lines = [
            "WeakDoubleBoson:ffbar2gmZgmZ=on",
            "WeakZ0:gmZmode=2",
            "23:onMode=off",
            f"23:onIfAny={QUARKS}",
        ]
        variants = [([*lines, *_Z_RANGE], {23: _BOSON_MASSES["Z"]})]
    elif process == "WToQQ":
        lines = ["WeakDoubleBoson:ffbar2WW=on", *hadronic_w, *_W_RANGE]
        variants = [(lines, {24: _BOSON_MASSES["W"]})]
    elif process in ("TTBar", "TTBarLep"):
        lines = ["Top:gg2ttbar=on", "Top:qqbar2ttbar=on", "24:onMode=off", *_W_RANGE]
        lines.append(f"24:onIfAny={QUARKS}" if process == "TTBar" else "24:onIfAny=11 13")
        variants = [(lines, {24: _BOSON_MASSES["W"]})]
    elif process == "ZJetsToNuNu":
        lines = ["WeakBosonAndParton:qqbar2gmZg=on", "WeakBosonAndParton:qg2gmZq=on", "WeakZ0:gmZmode=2"]
        lines += ["23:onMode=off", f"23:onIfAny={NEUTRINOS}", *_Z_RANGE]
        variants = [(lines, {23: _BOSON_MASSES["Z"]})]
    else:
        raise ValueError(f"no JetClass process {process!r}")
    cut = f"PhaseSpace:pTHatMin={JETCLASS_PTHAT}"
    return tuple(
        Point(process, (*lines, cut), masses, {25: (25, 36), 24: (24,), 23: (23,), 6: (6,)})
        for lines, masses in variants
    )


# ---- JetClass-II -----------------------------------------------------------------------------------------

N_DRAWS = 5
"""Uniform numbers a JetClass-II point is made from."""


def jetclass2_point(bucket: str, draws: Floats) -> Point:
    """Point of a JetClass-II bucket.

    Parameters
    ----------
    bucket : ``QCD``, ``Res2P`` or ``Res34P``
    draws : (N_DRAWS,) uniform random numbers in [0, 1), which determine the parameters

    Returns
    -------
    The point.

    Raises
    ------
    ValueError
        No such bucket.
    """
    if bucket == "QCD":
        pthat = PTHAT_QCD[int(draws[0] * len(PTHAT_QCD))]
        lines = ["HardQCD:all=on", f"PhaseSpace:pTHatMin={pthat:.3f}"]
        return Point(f"QCD with pTHat above {pthat:.0f} GeV", tuple(lines))
    pthat = PTHAT_X[int(draws[0] * len(PTHAT_X))]
    mass = MASS_X[0] + (MASS_X[1] - MASS_X[0]) * float(draws[1])
    mass_range = (max(MASS_X[0], (1 - MASS_SPREAD) * mass), min(MASS_X[1], (1 + MASS_SPREAD) * mass))
    lines = ["Higgs:useBSM=on", f"PhaseSpace:pTHatMin={pthat:.3f}"]
    if bucket == "Res2P":
        return _two_prong(lines, mass_range, charged=bool(draws[2] < CHARGED_SHARE))
    if bucket == "Res34P":
        return _four_prong(lines, mass_range, draws[2], draws[3])
    raise ValueError(f"no JetClass-II bucket {bucket!r}")


def _span(mass_range: tuple[float, float]) -> str:
    return f"{mass_range[0]:.0f}-{mass_range[1]:.0f}"


def _flat(code: int, mass_range: tuple[float, float]) -> list[str]:
    """A line shape so wide that the mass is nearly uniform in its range."""
    return resonance(code, sum(mass_range) / 2, 1000.0, mass_range)


def _two_prong(lines: list[str], mass_range: tuple[float, float], *, charged: bool) -> Point:
    """Build X X with X to two products: A H for neutral X, H+ H- for charged X."""
    if charged:
        lines = [*lines, "HiggsBSM:ffbar2H+H-=on", *_flat(37, mass_range), *decays(37, CHARGED_CHANNELS)]
        return Point(f"charged X of {_span(mass_range)} GeV", tuple(lines), {37: mass_range}, {37: (37,)})
    lines = [*lines, "HiggsBSM:ffbar2A3H1=on"]
    for code in (25, 36):
        lines += _flat(code, mass_range) + decays(code, NEUTRAL_CHANNELS)
    return Point(
        f"neutral X of {_span(mass_range)} GeV",
        tuple(lines),
        {25: mass_range, 36: mass_range},
        {25: (25, 36)},
    )


def _four_prong(
    lines: list[str], mass_range: tuple[float, float], mass_draw: float, width_draw: float
) -> Point:
    """Build X X with X to Y Y: X = A and H2, neutral Y = H1, charged Y = H+-."""
    ratio = MASS_RATIO_Y[0] + (MASS_RATIO_Y[1] - MASS_RATIO_Y[0]) * mass_draw
    mass = max(ratio * sum(mass_range) / 2, 2 * MASS_MIN_Y)
    width = mass * float(np.exp(np.interp(width_draw, [0, 1], np.log(WIDTH_RATIO_Y))))
    range_y = (MASS_MIN_Y, mass_range[1])
    lines = [*lines, "HiggsBSM:ffbar2A3H2=on"]
    for code in (35, 36):
        lines += _flat(code, mass_range) + decays(code, [(0.5, 37, -37), (0.5, 25, 25)])
    lines += resonance(25, mass, width, range_y) + decays(25, NEUTRAL_CHANNELS)
    lines += resonance(37, mass, width, range_y) + decays(37, CHARGED_CHANNELS_Y)
    masses = {35: mass_range, 36: mass_range, 25: range_y, 37: range_y}
    name = f"X of {_span(mass_range)} GeV to Y of {mass:.1f} GeV"
    return Point(name, tuple(lines), masses, {25: (35, 36), 35: (25,), 37: (37,)})
