"""What an analysis writes and other commands read again. Figures and report are for people alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.faults.digests import digest
from benchmarks.faults.flips import FilesKind
from jetscale.analysis.__main__ import main
from jetscale.analysis.answers import laws
from jetscale.analysis.tables.loading import load_losses

READ_AGAIN = ("results.json", "losses.parquet", "losses-blocks.parquet", "replicates.parquet")


def _make(folder: Path) -> None:
    rng = np.random.default_rng(1)
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    loss = (1.8 + 400 / N**0.34 + 2000 / D**0.37) * np.exp(0.003 * rng.normal(size=N.size))
    pd.DataFrame({"N": N, "D": D, "loss": loss}).to_csv(folder / "table.csv", index=False)
    where = [f"path={folder}/table.csv", f"out={folder}/out", "source=table"]
    main([*where, "uncertainty.replicates=20", "multiverse=false"])


def _files(folder: Path) -> list[Path]:
    return [path for name in READ_AGAIN if (path := folder / "out" / name).exists()]


def _read(folder: Path) -> str:
    """Laws to plan with, and the losses to fit again."""
    found = laws.of(folder / "out")
    losses = load_losses(str(folder / "out" / "losses.parquet"), "table")
    out = folder / "out"
    return digest(
        json.loads((out / "results.json").read_text()),  # people read what the commands leave out
        pd.read_parquet(out / "replicates.parquet"),
        found,
        losses,
    )


KINDS = (FilesKind("analysis outputs", 130, _make, _files, _read),)
