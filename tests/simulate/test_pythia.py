from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from jetscale.simulate.chunk import Chunk, points, simulate_chunk
from jetscale.simulate.processes import MASS_X, PTHAT_QCD, PTHAT_X, Point, jetclass2_point
from jetscale.simulate.pythia import Generator, mpi_settings, save_mpi_table

FAST = ("PartonLevel:MPI=off",)
DIJETS = Point("dijets", ("HardQCD:all=on", "PhaseSpace:pTHatMin=200"))
FRAGILE = "Check:epTolErr=1e-14"
"""Momentum balance to the last digit: about half of all events fail."""


def test_failing_events_are_made_again_and_none_is_lost() -> None:
    lossy = Generator(DIJETS, 1, (*FAST, FRAGILE))
    assert len(lossy._pythia.nextBatch(40)) < 40, "the provocation no longer provokes"
    events = Generator(DIJETS, 1, (*FAST, FRAGILE)).batch(40)
    assert events.n_events == 40
    final = events.status > 0
    for event in range(40):
        rows = final & (events.event == event)
        assert events.energy[rows].sum() == pytest.approx(13_000, rel=1e-6)
        assert abs(events.px[rows].sum()) < 1e-3


def test_a_chunk_with_failing_events_has_all_its_jets() -> None:
    jets, effort = simulate_chunk(Chunk("jetclass2", "QCD", 0, 0, 20, 0, extra=(FRAGILE,)), None)
    assert jets.num_rows == 20
    assert effort.events > 0


def test_hopeless_settings_stop_with_the_reason() -> None:
    generator = Generator(DIJETS, 1, (*FAST, "Check:epTolErr=1e-30", "Check:epTolWarn=1e-31"))
    with pytest.raises(RuntimeError, match="cannot make 2 events for dijets"):
        generator.batch(2)


def test_a_chunk_that_yields_nothing_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetscale.simulate.chunk.HOPELESS_EVENTS", 40)
    monkeypatch.setattr("jetscale.simulate.chunk.JET_CUTS", {"jetclass": (6000.0, 6500.0, 2.0)})
    with pytest.raises(RuntimeError, match="gave 0 jets of WToQQ"):
        simulate_chunk(Chunk("jetclass", "WToQQ", 0, 0, 10, 0), None)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(RuntimeError, match="does not accept 'HardQCD:everything=on'"):
        Generator(Point("x", ("HardQCD:everything=on",)), 1)


def test_silent_mass_floor_is_caught() -> None:
    """Pythia keeps mMin = 50 GeV for a Higgs boson set to 15 GeV, without a word."""
    settings = (
        "HiggsSM:ffbar2HZ=on",
        "25:m0=15",
        "25:mWidth=0.01",
        "25:doForceWidth=on",
        "PhaseSpace:pTHatMin=200",
    )
    with pytest.raises(RuntimeError, match="particle 25 has masses of"):
        Generator(Point("trap", settings, {25: (14.0, 16.0)}), 1, FAST).batch(10)


def test_saved_multiparton_table_is_reproducible_and_used(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    save_mpi_table(first)
    save_mpi_table(second)
    assert first.read_bytes() == second.read_bytes()
    with_table = Generator(DIJETS, 1, mpi_settings(first)).batch(20)
    without = Generator(DIJETS, 1, mpi_settings(None)).batch(20)
    assert len(with_table.pid) > 1.5 * len(without.pid)
    with pytest.raises(RuntimeError, match="cannot be initialised"):
        Generator(DIJETS, 1, mpi_settings(tmp_path / "missing.txt"))


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["Res2P", "Res34P"])
def test_corners_of_parameter_space_generate(bucket: str) -> None:
    """Lightest and heaviest X, softest and hardest, lightest and heaviest Y."""
    corners = ([0, 0, 0, 0, 0], [0.999] * 5, [0.999, 0, 0.999, 0, 0], [0, 0.999, 0.5, 0.999, 0])
    for draws in corners:
        point = jetclass2_point(bucket, np.array(draws))
        events = Generator(point, 5, FAST).batch(5)
        xs = point.published[37 if "charged" in point.name else 25]
        mass = events.mass[np.isin(np.abs(events.pid), xs) & (np.abs(events.status) == 22)]
        assert len(mass) == 10
        assert mass.min() > MASS_X[0] - 1e-6
        assert mass.max() < MASS_X[1] + 1e-6


def test_points_of_a_chunk_cover_the_published_ranges_evenly() -> None:
    found = [
        point.settings
        for index in range(20)
        for point in points(Chunk("jetclass2", "Res2P", 0, index, 2000, 0))
    ]
    assert len(found) == 160
    pthat = np.array([float(line.split("=")[1]) for lines in found for line in lines if "pTHatMin" in line])
    assert np.min(np.abs(pthat[:, None] - PTHAT_X), axis=1).max() < 1e-3
    counts = np.histogram(np.log(pthat), bins=4, range=np.log([100, 2500]))[0]
    assert counts.min() > 30
    low = np.array([float(line.split("=")[1]) for lines in found for line in lines if ":mMin" in line])
    assert low.min() == 15
    assert np.histogram(low, bins=3, range=(15, 450))[0].min() > 40
    charged = sum("HiggsBSM:ffbar2H+H-=on" in lines for lines in found)
    assert abs(charged - 160 * 3 / 7) < 20
    assert PTHAT_QCD[0] == pytest.approx(100)
    assert PTHAT_QCD[-1] == pytest.approx(5000)


def test_the_files_do_not_repeat_each_other(jetclass: Mapping[str, ak.Array]) -> None:
    """Classes share production and seeds are per purpose: no two jets are equal."""
    pts = np.concatenate([ak.to_numpy(jets.jet_pt) for jets in jetclass.values()])
    assert len(np.unique(pts)) == len(pts)
