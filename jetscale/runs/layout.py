"""Names and paths of a run directory, written nowhere else.

``<sweep>/<subset>/dim=<d>/seed=<s>[/<variant>]/`` holds the files named here; `Place` is such a path as
fields. ``conf/train.yaml`` builds the same path for Hydra, and a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.yaml"
"""The run's settings, resolved."""
IDENTITY = "identity.json"
"""Written first: which run was begun here, and the checksum of its settings."""
METRICS = "metrics.jsonl"
"""One line for each training window and each evaluation."""
BLOCKS = "test_blocks.parquet"
"""The test losses in `N_BLOCKS` blocks of jets."""
DONE = "done.json"
"""Written last: the run is finished."""
FAILED = "failed.json"
"""The error that stopped the run's last start."""
TRACEBACK = "failed.log"
"""The traceback of that error."""
OWNER = "owner.json"
"""Which process writes here, with a counter that shows that it lives."""
LOCK = ".lock"
"""The file that the writing process has locked."""
CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints, and of the final weights."""
WEIGHTS = f"{CHECKPOINTS}/final.pt"
"""The final weights."""
WANDB_ID = "wandb.json"
"""The id that the run has in W&B."""
WANDB_FILES = "wandb"
"""Folder in which the W&B client keeps its own files."""
SHARED_COPY = "jetscale"
"""Folder, among a run's files in W&B, of a copy of the finished run directory (`runs.shared_copy`)."""

KEPT = (CONFIG, METRICS, BLOCKS, WEIGHTS, f"{CHECKPOINTS}/final.json")
"""Files of which a finished run consists, besides ``done.json``, which holds their checksums."""
MARKS = frozenset({IDENTITY, FAILED, DONE, OWNER, METRICS, CONFIG})
"""A folder with one of these files is a run directory."""
BEGUN = (IDENTITY, OWNER, METRICS)
"""A run directory with one of these files was started."""
NOT_RUNS = frozenset({CHECKPOINTS, WANDB_FILES, "analysis"})
"""Folders below a sweep in which no run is."""

SWEEPS = "multirun"
"""Folder of all sweeps."""
SWEEP_PLAN = "plan.json"
"""The runs that a sweep consists of, in the sweep's folder."""
BACKBONES = "backbones"
"""Folder of the finished pretrainings, beside the sweeps; each has the files of a run directory."""

N_BLOCKS = 1_000
"""A test jet's block is its position in the test split modulo this: the same jets for every run."""

PATH_PATTERN = "<subset>/dim=<d>/seed=<s>"
"""The path of a run directory below a sweep, for messages."""
_PLACE = re.compile(r"(?P<subset>[^/]+)/dim=(?P<dim>\d+)/seed=(?P<seed>\d+)(?:/(?P<variant>.+))?$")


@dataclass(frozen=True)
class Place:
    """Where a run is in the grid of a sweep.

    Attributes
    ----------
    subset : name of the composition that the run pretrains on
    dim : width of the network
    seed : seed of the run
    variant : the overrides beyond subset, width and seed, as a folder name; empty for none
    """

    subset: str
    dim: int
    seed: int
    variant: str = ""

    @property
    def path(self) -> str:
        """The run directory, relative to the sweep."""
        return f"{self.group}/seed={self.seed}" + (f"/{self.variant}" if self.variant else "")

    @property
    def group(self) -> str:
        """The folder that the runs of all seeds share, relative to the sweep."""
        return f"{self.subset}/dim={self.dim}"

    @property
    def title(self) -> str:
        """Subset, width, seed and variant, for people."""
        return f"{self.subset} dim={self.dim} seed={self.seed} {self.variant}".rstrip()

    @property
    def label(self) -> str:
        """Subset, width and seed as one word."""
        return f"{self.subset}-dim={self.dim}-seed={self.seed}"


def place_of(path: Path) -> Place | None:
    """Place of the run directory `path`; None for another kind of folder."""
    found = _PLACE.search(path.as_posix())
    if found is None:
        return None
    return Place(found["subset"], int(found["dim"]), int(found["seed"]), found["variant"] or "")


def checkpoint_name(phase: str, which: str) -> str:
    """File name of the checkpoint `which` (``last`` or ``previous``) of `phase`, in `CHECKPOINTS`."""
    return f"{phase}.{which}.pt"


def backbone_name(subset: str, dim: int, seed: int, identity: str) -> str:
    """Folder name of a pretraining.

    Parameters
    ----------
    subset : name of its composition, in the run that was the first to want it; or ``*`` for a pattern that
        matches any, since other runs may give the composition other names
    dim, seed : of the pretraining
    identity : fingerprint of its settings and jets, or ``*`` for a pattern that matches any
    """
    return f"{Place(subset, dim, seed).label}-{identity[:12]}"
