"""What a user may choose about jets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jetscale.common.fields import WORKERS, OneOf, Range
from jetscale.jets.errors import JetDataError
from jetscale.jets.reading.locations import Folder, RemoteFolder, folder_of

MAX_CONSTITUENTS = 128
"""Constituents kept per jet, the leading ones in pT: the length of ParT. The longest of 2,200 real JetClass
jets has 93, so for practical purposes none is lost."""

FEATURES = OneOf("paper", "part17", "kinematics")
SELECTION = OneOf("none", "sophon")


@dataclass
class DataSettings:
    """Which jets, where, and how they become inputs.

    Attributes
    ----------
    dir : folder or URL (https://, s3://, root://) with the datasets' folders inside: JetClass/, JetClassII/,
        ...
    store : folder of packed stores, on a local disk; default <dir>/store
    features : paper (8 columns and the identity), part17 (ParT's 17) or kinematics (the paper's 4 of momenta)
    max_constituents : constituents kept per jet, leading in pT
    undo_deta_flip : give part_deta its geometric sign back (published with the sign of jet_eta multiplied in)
    selection : none, or sophon (200 < jet_pt < 2500 and 20 < jet_sdmass < 500 GeV)
    qcd_labels : JetClass-II QCD classes: 27, 17 or 1
    repeat : allow jets to be seen more than once
    workers : processes that load batches; 0 loads in the training process. The captured step of a GPU takes
        no notice of it: there one thread gathers the jets
    """

    dir: str = "data"
    store: str | None = None
    features: Annotated[str, FEATURES] = "paper"
    max_constituents: Annotated[int, Range(1, 10_000)] = MAX_CONSTITUENTS
    undo_deta_flip: bool = False
    selection: Annotated[str, SELECTION] = "none"
    qcd_labels: Annotated[str, OneOf("27", "17", "1")] = "27"
    repeat: bool = False
    workers: Annotated[int, WORKERS] = 0

    @property
    def directory(self) -> Folder:
        """Folder of the jet files."""
        return folder_of(self.dir)

    @property
    def store_dir(self) -> Path:
        """Folder of packed stores.

        Raises
        ------
        JetDataError
            It is remote: `store` is a URL, or missing where `dir` is a URL.
        """
        folder = folder_of(self.store) if self.store is not None else self.directory / "store"
        if isinstance(folder, RemoteFolder):
            raise JetDataError(
                f"{folder}: a packed store is mapped into memory, so it must be on a local disk; "
                "name a local folder for it (data.store=FOLDER, or store=FOLDER of jetscale.prepare)"
            )
        return folder
