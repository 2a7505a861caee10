from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetscale.jets.datasets.base import DATASETS, LabelMap
from jetscale.jets.errors import JetDataError
from jetscale.jets.ordering.compositions import Composition
from jetscale.jets.ordering.positions import BLOCK, MixedOrder, StoreOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest

WEIGHTS = {"QCD": 15, "Res2P": 20, "Res34P": 65}


@pytest.fixture(scope="module")
def store(jetclass2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    request = StoreRequest(
        jetclass2_dir, tmp_path_factory.mktemp("store"), "jetclass2", "train", "paper", "none"
    )
    made = ensure_store(request, workers=1, part_bytes=400_000)
    assert len(made.entries) > 5, "these tests want several parts"
    return made


def order(store: Store, weights: dict[str, Any] | None, seed: int = 0, qcd: str = "27") -> MixedOrder:
    labels = DATASETS["jetclass2"].label_map(qcd)
    mix = Composition.natural(labels) if weights is None else Composition.from_request(weights, labels)
    return MixedOrder(store, labels, mix, seed)


def jets(mixed: MixedOrder | StoreOrder, n_jets: int) -> list[tuple[int, int]]:
    blocks = [mixed.block(number) for number in range(-(-n_jets // BLOCK))]
    places = [place for parts, rows in blocks for place in zip(parts.tolist(), rows.tolist(), strict=True)]
    return places[:n_jets]


def label_of(store: Store, places: list[tuple[int, int]]) -> np.ndarray:
    return np.array([store.part(part).jets.labels[row] for part, row in places])


def bucket_of(store: Store, places: list[tuple[int, int]], labels: LabelMap) -> list[str]:
    of_label = {label: bucket for bucket, classes in labels.buckets.items() for label in classes}
    return [of_label[label] for label in label_of(store, places).tolist()]


def test_a_position_does_not_depend_on_what_was_asked_before(store: Store) -> None:
    ahead, late = order(store, WEIGHTS), order(store, WEIGHTS)
    late_first = late.block(7)
    forward = [ahead.block(number) for number in range(8)]
    assert np.array_equal(forward[7], late_first)
    assert np.array_equal(forward[2], late.block(2))


def test_other_seed_other_order(store: Store) -> None:
    for weights in (None, WEIGHTS):
        zero, one = jets(order(store, weights, 0), 500), jets(order(store, weights, 1), 500)
        assert zero != one
        assert set(zero) != set(one), "another seed starts with other jets, not only in another order"
        assert zero == jets(order(store, weights, 0), 500)


def test_exact_weights_in_every_block(store: Store) -> None:
    mixed = order(store, WEIGHTS)
    labels = DATASETS["jetclass2"].label_map()
    places = jets(mixed, 3 * BLOCK)
    for start in range(0, len(places), BLOCK):
        found = bucket_of(store, places[start : start + BLOCK], labels)
        assert {bucket: found.count(bucket) for bucket in WEIGHTS} == {
            bucket: weight * BLOCK // 100 for bucket, weight in WEIGHTS.items()
        }
    first_half = bucket_of(store, places[: BLOCK // 2], labels)
    assert first_half != sorted(first_half), "shuffled inside the block"


def test_uneven_weights_over_many_blocks(store: Store) -> None:
    weights = {"X_bb": 1, "X_cc": 1.7, "QCD_*": np.pi, "X_YY_*": 0.01}
    found = label_of(store, jets(order(store, weights), 5 * BLOCK))
    total = sum(weights.values())
    assert abs((found == 0).sum() - 5 * BLOCK / total) <= 1
    assert abs((found == 1).sum() - 5 * BLOCK * 1.7 / total) <= 1
    assert abs((found >= 161).sum() - 5 * BLOCK * np.pi / total) <= 1


@pytest.mark.parametrize("weights", [None, {"QCD": 1}, {"X_bb": 1, "QCD_s*": 2}])
def test_every_jet_once_per_pass(store: Store, weights: dict[str, float] | None) -> None:
    mixed = order(store, weights, seed=3)
    labels = DATASETS["jetclass2"].label_map()
    mix = Composition.natural(labels) if weights is None else Composition.from_request(weights, labels)
    for component in mix.components:
        wanted = set(component.classes)
        there = int(store.label_counts[list(wanted)].sum())
        seen = [
            place for place in jets(mixed, 8 * BLOCK) if store.part(place[0]).jets.labels[place[1]] in wanted
        ]
        for number in range(len(seen) // there):
            assert len(set(seen[number * there : (number + 1) * there])) == there
        assert seen[:there] != seen[there : 2 * there], "every pass has its own order"


def test_windows(store: Store) -> None:
    window = {"weight": 3, "classes": "Res34P", "jet_pt": [600, 800], "jet_sdmass": [20, 90]}
    mixed = order(store, {"window": window, "QCD": 1})
    columns = ("jet_pt", "jet_sdmass", "label")
    every = {
        (part, row): tuple(float(value) for value in values)
        for part in range(len(store.entries))
        for row, values in enumerate(
            zip(
                *[store.part(part).jets.jets[name] for name in columns[:2]],
                store.part(part).jets.labels,
                strict=True,
            )
        )
    }
    inside = {
        place for place, (pt, mass, label) in every.items()
        if 600 <= pt < 800 and 20 <= mass < 90 and 15 <= label < 161
    }  # fmt: skip
    assert len(inside) > 50
    asked = 4 * len(inside) // 3
    chosen = [place for place in jets(mixed, asked) if every[place][2] < 161]
    assert len(chosen) == pytest.approx(len(inside), abs=2)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= inside
    with pytest.raises(
        JetDataError,
        match=r"'window', 600 <= jet_pt < 800 GeV, 20 <= jet_sdmass < 90 GeV "
        rf"\(weight 0.75\), which has {len(inside)} ",
    ):
        mixed.check_supply(asked + 10)
    with pytest.raises(JetDataError, match=r"holds no jet of 'QCD', 3000 <= jet_pt < 4000 GeV, which has"):
        order(store, {"QCD": {"weight": 1, "jet_pt": [3000, 4000]}}).check_every_component()


def test_classes_of_a_component_come_in_the_proportions_of_the_store(store: Store) -> None:
    n_qcd = int(store.label_counts[161:].sum())
    found = label_of(store, jets(order(store, {"QCD": 1}), n_qcd))
    assert np.array_equal(np.bincount(found, minlength=188)[161:], store.label_counts[161:])
    first = np.bincount(found[: n_qcd // 2], minlength=188)[161:]
    assert (first > 0).sum() > 20, "classes are mixed all along the way"


def test_reading_is_nearly_sequential(store: Store) -> None:
    """All components go through the parts in the same order, so few parts are open at a time."""
    parts = np.array([part for part, _ in jets(order(store, None), store.n_jets)])
    changes = int((np.diff(parts) != 0).sum())
    assert changes == len(store.entries) - 1


@pytest.mark.parametrize("n_more", [0, 1])
def test_single_pass(store: Store, n_more: int) -> None:
    mixed = order(store, WEIGHTS)
    end, k = mixed.single_pass()
    assert k == 2
    if not n_more:
        mixed.check_supply(end)
        seen = jets(mixed, end)
        assert len(set(seen)) == len(seen)
        assert jets(mixed, end + 1)[-1] in seen
        return
    has = int(store.label_counts[15:161].sum())
    with pytest.raises(
        JetDataError,
        match=rf"{end + 1:,} jets asked in a single pass.*of 'Res34P' \(weight 0.65\), which has {has:,} "
        rf"and runs out at jet {end:,}.*data.repeat=true",
    ):
        mixed.check_supply(end + 1)


@pytest.mark.parametrize(
    ("composition", "hinted"),
    [
        (WEIGHTS, False),
        ({"X_bb": 1, "QCD": 1}, True),
        ({"a": {"weight": 1, "classes": "Res34P", "jet_pt": [0, 9000]}}, True),
    ],
)
def test_jets_of_single_classes_and_windows_are_not_counted_by_budgets(
    store: Store, composition: dict[str, Any], hinted: bool
) -> None:
    with pytest.raises(JetDataError) as refused:
        order(store, composition).check_supply(10**9)
    way_out = "; add jets (a budget of jetscale.download fetches what whole buckets need, dataset=jetclass2 "
    assert (f"{way_out}budget=all fetches all), or ask for fewer" in str(refused.value)) == hinted
    assert ("; add jets, or ask for fewer" in str(refused.value)) != hinted


def test_single_pass_of_the_whole_store(store: Store) -> None:
    mixed = order(store, None)
    assert mixed.single_pass()[0] == store.n_jets
    mixed.check_supply(store.n_jets)
    with pytest.raises(JetDataError, match=f"{store.n_jets + 1:,} jets asked"):
        mixed.check_supply(store.n_jets + 1)


def test_passes(store: Store) -> None:
    n_bb = int(store.label_counts[0])
    assert order(store, {"X_bb": 1}).passes(5 * n_bb) == {"X_bb": pytest.approx(5)}


def test_a_class_without_jets_is_an_error(store: Store) -> None:
    class Empty(Store):
        pass

    empty = Empty(**{**store.__dict__, "label_counts_PL": store.label_counts_PL.copy()})
    empty.label_counts_PL[:, 0] = 0
    mixed = order(empty, {"QCD": 1, "X_bb": 1})
    assert mixed.single_pass() == (0, 1)
    with pytest.raises(JetDataError, match="holds no jet of 'X_bb', which has a weight"):
        mixed.check_every_component()
    source = JetSource(DataSettings(), "jetclass2", "train", {"QCD": 1, "X_bb": 1}, seed=0)
    with pytest.raises(JetDataError, match="holds no jet of 'X_bb', which has a weight"):
        source.order_in(empty)


def test_store_order(store: Store) -> None:
    plain = StoreOrder(store, DATASETS["jetclass2"].label_map())
    assert plain.n_jets == store.n_jets
    expected = [(part, row) for part, entry in enumerate(store.entries) for row in range(entry["n_jets"])]
    assert jets(plain, plain.n_jets) == expected


def test_store_order_leaves_out_labels_without_a_class(store: Store) -> None:
    labels = DATASETS["jetclass2"].label_map("17")
    plain = StoreOrder(store, labels)
    everything = jets(StoreOrder(store, DATASETS["jetclass2"].label_map()), store.n_jets)
    kept = [place for place in everything
            if labels.class_of_label[store.part(place[0]).jets.labels[place[1]]] >= 0]  # fmt: skip
    assert jets(plain, plain.n_jets) == kept
    assert 0 < plain.n_jets < store.n_jets
    mixed = order(store, None, qcd="17")
    assert set(jets(mixed, plain.n_jets)) == set(kept)
