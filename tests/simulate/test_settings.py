from __future__ import annotations

from collections import Counter

import pytest

from jetscale.common import cli
from jetscale.common.usage import UsageError
from jetscale.simulate.settings import Settings, plan


def planned(*arguments: str) -> list[tuple[str, str, int, int]]:
    files = plan(cli.parse(Settings, arguments, "simulate"))
    return [(file.process, file.split, file.number, jets) for file, jets in files]


def test_equal_classes_and_the_published_numbers() -> None:
    files = planned("n_jets=100000")
    jets = Counter()  # type: Counter[tuple[str, str]]
    for process, split, _, number in files:
        jets[process, split] += number
    assert len(jets) == 30
    assert {jets[process, "train"] for process, _ in jets} == {10_000}
    assert {jets[process, "val"] for process, _ in jets} == {1_000}
    assert {jets[process, "test"] for process, _ in jets} == {2_000}
    assert {number for _, split, number, _ in files if split == "train"} == {0}
    assert {number for _, split, number, _ in files if split == "val"} == {120}
    assert {number for _, split, number, _ in files if split == "test"} == {100}


def test_files_are_cut_at_jets_per_file() -> None:
    files = planned(
        "dataset=jetclass", "classes=[QCD,Tbqq]", "n_jets=500", "n_val=0", "n_test=0", "jets_per_file=100"
    )
    assert [(process, number, jets) for process, _, number, jets in files] == [
        (process, number, jets)
        for process in ("ZJetsToNuNu", "TTBar")
        for number, jets in enumerate([100, 100, 50])
    ]


def test_bucket_shares() -> None:
    files = planned(
        "dataset=jetclass2", "n_jets=400", "n_val=0", "n_test=100", "buckets.QCD=2", "buckets.Res2P=0"
    )
    assert files == [
        ("Res34P", "train", 0, 133),
        ("QCD", "train", 0, 267),
        ("Res34P", "test", 1075, 33),
        ("QCD", "test", 350, 67),
    ]


def test_shares_given_as_a_whole_replace_the_default_ones() -> None:
    files = planned("dataset=jetclass2", "n_jets=400", "n_val=0", "n_test=0", "buckets={QCD: 1}")
    assert files == [("QCD", "train", 0, 400)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=cms"], "one of jetclass, jetclass2"),
        (["n_jets=1001"], "n_jets=1001 cannot be shared equally by 10 classes; take 1000 or 1010"),
        (["n_jets=1000", "n_test=5"], "n_test=5 cannot be shared"),
        (["n_jets=-10"], "n_jets=-10: must be a whole number from 0"),
        (["classes=[QCD,Hxx]"], "classes=Hxx: must be one of QCD, Hbb"),
        (["classes=[QCD,QCD]"], "twice"),
        (["classes=QCD"], r"classes=QCD: must be a list, \[QCD\]"),
        (["dataset=jetclass2", "buckets={QCD: 0}"], "at least one share must be above 0"),
        (["dataset=jetclass2", "buckets.Res5P=1"], "no Res5P"),
        (["dataset=jetclass2", "buckets.QCD=-1"], "buckets.QCD=-1: must be a number from 0"),
        (
            ["dataset=jetclass2", "classes=[QCD,Hbb]"],
            r"classes=\[QCD,Hbb\] belongs to dataset=jetclass, and dataset=jetclass2 was asked for: leave it",
        ),
        (
            ["dataset=jetclass", "buckets.QCD=0"],
            "buckets=.*'QCD': 0.* belongs to dataset=jetclass2, and dataset=jetclass was asked for: leave it",
        ),
        (["buckets={QCD: 1}"], r"buckets=\{'QCD': 1.* belongs to dataset=jetclass2"),
        (["jets_per_file=100001"], "1 to 100000"),
        (["workers=0"], "workers=0: must be a whole number from 1"),
        (["n_jets=100000", "jets_per_file=10"], "take jets_per_file=100"),
        (["njets=10"], "did you mean n_jets"),
    ],
)
def test_mistakes_are_named_with_their_mend(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(*arguments)
