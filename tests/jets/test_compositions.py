from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetscale.jets.apportion import apportion, run_out
from jetscale.jets.compositions import Composition
from jetscale.jets.errors import JetDataError
from jetscale.jets.label_map import label_map
from jetscale.jets.labels import BUCKET_LABELS, JETCLASS2_LABELS, JETCLASS_LABELS

BSM = label_map("jetclass2")


def test_weights_by_class_bucket_and_glob() -> None:
    mix = Composition.from_weights({"X_bb": 1, "QCD_*": 2, "Res34P": 1}, BSM)
    assert [component.weight for component in mix.components] == [0.25, 0.5, 0.25]
    names = [{BSM.names[number] for number in component.classes} for component in mix.components]
    assert names == [{"X_bb"}, set(BUCKET_LABELS["QCD"]), set(BUCKET_LABELS["Res34P"])]


def test_a_weight_of_zero_leaves_a_component_out() -> None:
    assert [c.selector for c in Composition.from_weights({"QCD": 1, "Res2P": 0}, BSM).components] == ["QCD"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"X_bbb": 1}, r"'X_bbb' matches no class; the nearest names are .*X_bb\b"),
        ({"Res3P": 1}, r"'Res3P' matches no class; the nearest names are Res34P, Res2P"),
        ({"Z_*": 1}, r"'Z_\*' matches no class; the nearest names are"),
        ({"QCD": 1, "QCD_b*": 1}, r"'QCD_b\*' and 'QCD' both select 'QCD_bbccss'"),
        ({"QCD": -1}, r"weight -1 of 'QCD'"),
        ({"QCD": math.nan}, r"weight nan of 'QCD'"),
        ({"QCD": 0}, r"at least one weight must be above 0"),
        ({}, r"at least one weight must be above 0"),
    ],
)
def test_errors(weights: dict[str, float], message: str) -> None:
    with pytest.raises(JetDataError, match=message):
        Composition.from_weights(weights, BSM)


def test_natural_composition_has_every_class() -> None:
    (component,) = Composition.natural(label_map("jetclass")).components
    assert component.classes == tuple(range(10))


def test_qcd_maps() -> None:
    assert BSM.names == JETCLASS2_LABELS
    assert BSM.class_of_label == tuple(range(188))
    few = label_map("jetclass2", "17")
    assert few.n_classes == 15 + 146 + 17
    kept = [label for label, number in enumerate(few.class_of_label) if label > 160 and number >= 0]
    assert kept == [166, 168, 169, 172, *range(174, 179), *range(180, 188)], "as listed in the data sheet"
    assert [few.names[number] for number in few.buckets["QCD"]] == [JETCLASS2_LABELS[label] for label in kept]
    one = label_map("jetclass2", "1")
    assert one.names == (*JETCLASS2_LABELS[:161], "QCD")
    assert one.class_of_label[161:] == (161,) * 27
    assert one.buckets["QCD"] == (161,)
    assert label_map("jetclass").names == JETCLASS_LABELS
    with pytest.raises(JetDataError, match="qcd_labels='18' is none of 27, 17, 1"):
        label_map("jetclass2", "18")
    with pytest.raises(JetDataError, match="no dataset 'jetclass3'"):
        label_map("jetclass3")


def test_labels_of_classes() -> None:
    one = label_map("jetclass2", "1")
    assert one.labels_of((0, 161)).tolist() == [0, *range(161, 188)]


weights = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=40).map(lambda w: np.array(w) / np.sum(w))


@given(weights, st.integers(0, 10**9))
def test_apportionment_is_whole_and_close(shares: np.ndarray, n: int) -> None:
    counts = apportion(n, shares)
    assert counts.sum() == n
    assert (counts >= 0).all()
    assert (np.abs(counts - shares * n) < 0.5 + len(shares) / 2).all()


@given(weights, st.integers(0, 3000))
def test_apportionment_never_takes_back(shares: np.ndarray, n: int) -> None:
    assert (apportion(n + 1, shares) >= apportion(n, shares)).all()


@given(weights, st.integers(0, 300))
def test_apportionment_is_that_of_the_divisor_method(shares: np.ndarray, n: int) -> None:
    seats = np.zeros(len(shares), int)
    for _ in range(n):
        seats[np.argmax(shares / (seats + 0.5))] += 1
    found = apportion(n, shares)
    # equal quotients may be served in another order
    late, early = (found - 0.5) / shares, (seats + 0.5) / shares
    if not np.array_equal(found, seats):
        assert late[found > seats].max() == pytest.approx(early[found > seats].max(), rel=1e-9)


@pytest.mark.parametrize("n", [20, 100, 1_000, 25_600_000, 76_800_000])
def test_whole_shares_are_exact(n: int) -> None:
    expected = [n * percent // 100 for percent in (15, 20, 65)]
    assert apportion(n, np.array([0.15, 0.20, 0.65])).tolist() == expected


def test_run_out() -> None:
    shares = np.array([0.25, 0.75])
    assert run_out(np.array([10, 1000]), shares) == 41
    assert apportion(41, shares).tolist() == [10, 31]
    assert apportion(42, shares).tolist() == [11, 31]
