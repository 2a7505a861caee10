from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import DATASETS, LabelMap
from jetscale.jets.datasets.jetclass import JETCLASS_LABELS
from jetscale.jets.datasets.jetclass2 import BUCKET_LABELS, JETCLASS2, JETCLASS2_LABELS
from jetscale.jets.errors import JetDataError
from jetscale.jets.ordering.apportion import apportion, run_out
from jetscale.jets.ordering.compositions import Composition

BSM = DATASETS["jetclass2"].label_map()


def test_weights_by_class_bucket_and_glob() -> None:
    mix = Composition.from_request({"X_bb": 1, "QCD_*": 2, "Res34P": 1}, BSM)
    assert [component.weight for component in mix.components] == [0.25, 0.5, 0.25]
    names = [{BSM.names[number] for number in component.classes} for component in mix.components]
    assert names == [{"X_bb"}, set(BUCKET_LABELS["QCD"]), set(BUCKET_LABELS["Res34P"])]


def test_a_weight_of_zero_leaves_a_component_out() -> None:
    assert [c.selector for c in Composition.from_request({"QCD": 1, "Res2P": 0}, BSM).components] == ["QCD"]


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
        ({"heavy": {"weight": 1, "prongs": 3}}, r"'heavy' matches no class"),
        ({"QCD": {"prongs": 3}}, r"the weight of 'QCD' is None"),
        ({"QCD": {"weight": True}}, r"the weight of 'QCD' is True"),
        ({"QCD": {"weight": 1, "mass": [1, 2]}}, r"no key 'mass'; there are weight, classes"),
        ({"QCD": {"weight": 1, "jet_pt": [900, 500]}}, r"jet_pt of 'QCD' is \[900, 500\]"),
        ({"QCD": {"weight": 1, "jet_pt": 500}}, r"jet_pt of 'QCD' is 500"),
        ({"QCD": {"weight": 1, "flavours": "t"}}, r"'QCD' asks flavours: 't'; there are b, c, e, g"),
        ({"QCD": {"weight": 1, "prongs": 5}}, r"'QCD' asks prongs: 5"),
        ({"QCD": {"weight": 1, "prongs": [3, 4]}}, r"no class of 'QCD' is left after prongs: \[3, 4\]"),
        (
            {
                "QCD": {"weight": 1, "jet_pt": [500, 900]},
                "x": {"weight": 1, "classes": "*", "jet_pt": [800, 1000]},
            },
            r"'x', 800 <= jet_pt < 1000 GeV and 'QCD', 500 <= jet_pt < 900 GeV both select",
        ),
    ],
)
def test_errors(weights: dict[str, Any], message: str) -> None:
    with pytest.raises(JetDataError, match=message):
        Composition.from_request(weights, BSM)


def classes(request: dict[str, Any], labels: LabelMap = BSM) -> set[str]:
    (component,) = Composition.from_request(request, labels).components
    return {labels.names[number] for number in component.classes}


def test_prongs_and_flavours_choose_classes() -> None:
    assert classes({"QCD": {"weight": 1, "without": ["b", "c", "s"]}}) == {"QCD_light"}
    two = {"heavy": {"weight": 1, "classes": "*", "prongs": 2, "flavours": "b"}}
    assert classes(two) == {"X_bb", "X_bc", "X_bq"}
    assert classes({"*": {"weight": 1, "prongs": 2}}) == set(BUCKET_LABELS["Res2P"])
    assert classes({"*": {"weight": 1, "prongs": 1}}) == set(BUCKET_LABELS["QCD"])
    hadronic = {"four": {"weight": 1, "classes": "Res34P", "prongs": 4, "without": ["e", "m", "tau"]}}
    mixed = {"bbcq", "ccbs", "ccbq", "ccsq", "sscq", "qqbc", "qqbs", "qqcs", "bcsq", "qqqb", "qqqc", "qqqs"}
    pairs = {
        first + second for first, second in combinations_with_replacement(["bb", "cc", "ss", "qq", "gg"], 2)
    }
    assert classes(hadronic) == {f"X_YY_{name}" for name in mixed | pairs}
    labels = DATASETS["jetclass"].label_map()
    any_of_them = {"any": {"weight": 1, "classes": "*", "prongs": [3, 4]}}
    assert classes(any_of_them, labels) == {"H4q", "Hqql", "Tbqq"}


def test_neutrinos_are_no_prong_and_taus_are_one() -> None:
    prongs = {name: JETCLASS2.anatomy[name].prongs for name in JETCLASS2_LABELS}
    assert prongs["X_YY_bcev"] == prongs["X_YY_bctauev"] == prongs["X_YY_btauhtaue"] == 3
    assert prongs["X_YY_bbtauhtauh"] == prongs["X_YY_bbee"] == 4
    assert {prongs[name] for name in BUCKET_LABELS["Res34P"]} == {3, 4}
    assert JETCLASS2.anatomy["X_YY_bctaumv"].flavours == {"b", "c", "tau"}
    assert JETCLASS2.flavours == ("b", "c", "e", "g", "light", "m", "q", "s", "tau")


def test_windows_side_by_side_do_not_overlap() -> None:
    low, high = ({"weight": 1, "classes": "*", "jet_pt": window} for window in ([200, 500], [500, 900]))
    mix = Composition.from_request({"low": low, "high": high}, BSM)
    assert [component.windows for component in mix.components] == [
        (("jet_pt", 200.0, 500.0),),
        (("jet_pt", 500.0, 900.0),),
    ]
    assert mix.definition() != Composition.from_request({"low": low}, BSM).definition()


def test_natural_composition_has_every_class() -> None:
    (component,) = Composition.natural(DATASETS["jetclass"].label_map()).components
    assert component.classes == tuple(range(10))


def test_qcd_maps() -> None:
    assert BSM.names == JETCLASS2_LABELS
    assert BSM.class_of_label == tuple(range(188))
    few = DATASETS["jetclass2"].label_map("17")
    assert few.n_classes == 15 + 146 + 17
    kept = [label for label, number in enumerate(few.class_of_label) if label > 160 and number >= 0]
    assert kept == [166, 168, 169, 172, *range(174, 179), *range(180, 188)], "as listed in the data sheet"
    assert [few.names[number] for number in few.buckets["QCD"]] == [JETCLASS2_LABELS[label] for label in kept]
    one = DATASETS["jetclass2"].label_map("1")
    assert one.names == (*JETCLASS2_LABELS[:161], "QCD")
    assert one.class_of_label[161:] == (161,) * 27
    assert one.buckets["QCD"] == (161,)
    assert DATASETS["jetclass"].label_map().names == JETCLASS_LABELS
    with pytest.raises(JetDataError, match="qcd_labels='18' is none of 27, 17, 1"):
        DATASETS["jetclass2"].label_map("18")
    with pytest.raises(UsageError, match=r"'jetclass3' is no dataset .*did you mean jetclass"):
        DATASETS["jetclass3"].label_map()


def test_labels_of_classes() -> None:
    one = DATASETS["jetclass2"].label_map("1")
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
