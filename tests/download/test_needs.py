"""How many files a budget takes, against numbers counted by hand from the compositions of the paper."""

from __future__ import annotations

import pytest

from jetscale.common.usage import UsageError
from jetscale.download import needs, settings
from jetscale.download.needs import files_needed
from jetscale.jets.datasets.base import all_datasets


def test_the_papers_budget() -> None:
    """25.6M jets: all of them QCD, 60% Res2P, 80% Res34P; 76.8M of ten classes, 100,000 to test."""
    assert files_needed("jetclass2", "paper", "all") == {"train": {"Res2P": 154, "Res34P": 205, "QCD": 256}}
    wanted = files_needed("jetclass", "paper", "all")
    assert {split: set(files.values()) for split, files in wanted.items()} == {"train": {77}, "test": {1}}
    assert len(wanted["train"]) == len(wanted["test"]) == 10


def test_small_budgets_and_those_built_on_others() -> None:
    for budget in ("smoke", "quickstart", "laptop", "laptop_tuned"):
        assert files_needed("jetclass2", budget, "train") == {"train": {"Res2P": 1, "Res34P": 1, "QCD": 1}}
    assert needs._read_budget("laptop_tuned")["pretrain"]["steps"] == 3125
    assert needs._read_budget("laptop_tuned")["pretrain"]["lr"]["dim"] == 24


def test_everything() -> None:
    counts = {split: sum(files.values()) for split, files in files_needed("jetclass", "all", "all").items()}
    assert counts == {"train": 1000, "val": 50, "test": 200}
    counts = {split: sum(files.values()) for split, files in files_needed("jetclass2", "all", "all").items()}
    assert counts == {"train": 1340, "val": 335, "test": 335}
    assert files_needed("jetclass2", "all", "test") == {"test": {"Res2P": 50, "Res34P": 215, "QCD": 70}}


def test_what_is_not_needed_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="budget=paper reads no test files of jetclass2; budget=all"):
        files_needed("jetclass2", "paper", "test")
    monkeypatch.setattr(needs, "JETS_A_FILE", 50_000)
    with pytest.raises(UsageError, match=r"needs 308 train files of Res2P \(50,000 jets each\), .* has 200"):
        files_needed("jetclass2", "paper", "train")


def test_every_dataset_that_says_so_can_be_fetched() -> None:
    assert settings.DATASET.words == tuple(one.name for one in all_datasets() if one.downloadable)
