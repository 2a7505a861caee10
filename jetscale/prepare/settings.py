"""Settings of ``python -m jetscale.prepare``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jetscale.common.fields import WORKERS, OneOf
from jetscale.common.registry import Registered
from jetscale.jets.datasets.base import DATASETS
from jetscale.jets.settings import FEATURES, SELECTION

ALL = "all"


class _RegisteredOrAll(Registered):
    """Limit of a field: the name of a dataset, or `ALL`."""

    @property
    def words(self) -> tuple[str, ...]:
        """Names of all datasets, and `ALL`."""
        return (*super().words, ALL)


@dataclass
class PrepareSettings:
    """Make packed stores of jet files, and check them.

    Attributes
    ----------
    dir : folder or URL (https://, s3://, root://) with the datasets' folders inside: JetClass/, JetClassII/,
        ...
    dataset : name of a dataset (jetclass, jetclass2, top_tagging, or one of your own), or all that are there
    split : train, val, test, or all that are there
    store : folder of packed stores, on a local disk; default <dir>/store
    features : paper (8 columns and the identity), part17 (ParT's 17) or kinematics (the paper's 4 of momenta)
    selection : none, or sophon (200 < jet_pt < 2500 and 20 < jet_sdmass < 500 GeV)
    workers : 0 for one per core
    check : make nothing; compare checksums of stores and of the source files that are there
    """

    dir: str = "data"
    dataset: Annotated[str, _RegisteredOrAll(DATASETS)] = ALL
    split: Annotated[str, OneOf("train", "val", "test", ALL)] = ALL
    store: str | None = None
    features: Annotated[str, FEATURES] = "paper"
    selection: Annotated[str, SELECTION] = "none"
    workers: Annotated[int, WORKERS] = 0
    check: bool = False
