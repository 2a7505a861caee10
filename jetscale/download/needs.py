"""How many files of each process or bucket a budget needs: the budgets and compositions in ``conf/`` say it.

A pretraining of n jets takes n times the share of a bucket from that bucket, in one pass; of the five subsets
of the paper, the one with the largest share decides. A fine-tuning takes all ten classes of JetClass alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from jetscale.common.config_safety import CONF
from jetscale.common.usage import UsageError
from jetscale.download.settings import ALL
from jetscale.jets.datasets.base import SPLITS
from jetscale.jets.datasets.jetclass import JETCLASS_NUMBERS, JETCLASS_PREFIXES
from jetscale.jets.datasets.jetclass2 import JETCLASS2_NUMBERS

JETS_A_FILE = 100_000
"""Jets in every published file of both datasets."""

Needs = dict[str, dict[str, int]]
"""By split, then by process or bucket: number of files."""


def files_needed(dataset: str, budget: str, split: str) -> Needs:
    """Files that the five subsets of the paper need under a budget.

    Parameters
    ----------
    dataset : ``jetclass`` or ``jetclass2``
    budget : name of a budget, or ``all``
    split : train, val, test or ``all``

    Returns
    -------
    Splits of which nothing is needed are left out.

    Raises
    ------
    UsageError
        The budget needs nothing of the split, or more files than are published.
    """
    published = {
        split: {process: len(numbers[split]) for process, numbers in _numbers(dataset).items()}
        for split in SPLITS
    }
    needs = published if budget == ALL else {
        "train": _of_training(dataset, _read_budget(budget)),
        "test": _of_test(dataset, _read_budget(budget)),
    }  # fmt: skip
    chosen = {name: files for name, files in needs.items() if split in (name, ALL) and any(files.values())}
    if not chosen:
        raise UsageError(
            f"budget={budget} reads no {split} files of {dataset}; "
            f"budget=all split={split} fetches all of them"
        )
    for name, files in chosen.items():
        for process, count in files.items():
            if count > published[name][process]:
                raise UsageError(
                    f"budget={budget} needs {count} {name} files of {process} ({JETS_A_FILE:,} jets each), "
                    f"{dataset} has {published[name][process]}; choose a smaller budget, or budget=all"
                )
    return chosen


def _numbers(dataset: str) -> Mapping[str, Mapping[str, range]]:
    if dataset == "jetclass2":
        return JETCLASS2_NUMBERS
    return dict.fromkeys(JETCLASS_PREFIXES.values(), JETCLASS_NUMBERS)


def _of_training(dataset: str, budget: Mapping[str, Any]) -> dict[str, int]:
    if dataset == "jetclass2":
        return {
            bucket: _files(share * _jets(budget["pretrain"])) for bucket, share in _largest_shares().items()
        }
    each = _files(Fraction(_jets(budget["finetune"]), len(JETCLASS_PREFIXES)))
    return dict.fromkeys(JETCLASS_PREFIXES.values(), each)


def _of_test(dataset: str, budget: Mapping[str, Any]) -> dict[str, int]:
    """Test losses are those of the fine-tuning; with ``eval.final_all`` of as many test jets as there are."""
    if dataset == "jetclass2":
        return {}
    each = _files(Fraction(budget["eval"]["jets"], len(JETCLASS_PREFIXES)))
    return dict.fromkeys(JETCLASS_PREFIXES.values(), each)


def _jets(phase: Mapping[str, Any]) -> int:
    return int(phase["steps"]) * int(phase["batch_size"])


def _files(jets: Fraction) -> int:
    return math.ceil(jets / JETS_A_FILE)


def _read_budget(name: str) -> dict[str, Any]:
    """Content of a budget's file, those that it builds on included."""
    content = _read(CONF / "budget" / f"{name}.yaml")
    merged: dict[str, Any] = {}
    for part in (*(_read_budget(base) for base in content.pop("defaults", ())), content):
        for key, value in part.items():
            inner = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = {**merged[key], **value} if inner else value
    return merged


def _largest_shares() -> dict[str, Fraction]:
    """Largest share of each bucket in any subset of the paper's sweep."""
    sweep = _read(CONF / "sweep" / "paper.yaml")["hydra"]["sweeper"]["params"]["+experiment"]
    shares = dict.fromkeys(JETCLASS2_NUMBERS, Fraction(0))
    for name in sweep.split(","):
        experiment = _read(CONF / "experiment" / f"{name}.yaml")
        weights = experiment.get("pretrain", {}).get("composition") or {}
        for bucket, weight in weights.items():
            shares[bucket] = max(shares[bucket], Fraction(weight) / sum(map(Fraction, weights.values())))
    return shares


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content
