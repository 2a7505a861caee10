"""Settings of ``python -m jetscale.prepare``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jetscale.common.fields import WORKERS, OneOf
from jetscale.jets.settings import FEATURES, SELECTION

ALL = "all"


@dataclass
class PrepareSettings:
    """Make packed stores of jet files, and check them.

    Attributes
    ----------
    dir : folder or URL (https://, s3://, root://) with JetClass/ or JetClassII/ inside
    dataset : jetclass, jetclass2, or all that are there
    split : train, val, test, or all that are there
    store : folder of packed stores, on a local disk; default <dir>/store
    features : paper (8 columns and the identity) or part17 (ParT's 17)
    selection : none, or sophon (200 < jet_pt < 2500 and 20 < jet_sdmass < 500 GeV)
    workers : 0 for one per core
    check : make nothing; compare checksums of stores and of the source files that are there
    """

    dir: str = "data"
    dataset: Annotated[str, OneOf("jetclass", "jetclass2", ALL)] = ALL
    split: Annotated[str, OneOf("train", "val", "test", ALL)] = ALL
    store: str | None = None
    features: Annotated[str, FEATURES] = "paper"
    selection: Annotated[str, SELECTION] = "none"
    workers: Annotated[int, WORKERS] = 0
    check: bool = False
