"""Files in the layout of the Top Quark Tagging Reference Dataset, with random jets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

MOMENTA = [f"{name}_{number}" for number in range(200) for name in ("E", "PX", "PY", "PZ")]
TRUTH = ["truthE", "truthPX", "truthPY", "truthPZ"]


def table_of(n_jets: int, seed: int) -> pd.DataFrame:
    """Jets of 2 to 80 constituents, padded with zeros to 200; those of tops are wider."""
    rng = np.random.default_rng([2603256, seed])
    label_B = rng.integers(0, 2, n_jets)
    width_B = np.where(label_B == 1, 0.3, 0.1)[:, None]
    pt = np.sort(rng.exponential(8.0, (n_jets, 200)) + 0.5, axis=1)[:, ::-1]
    eta = rng.uniform(-2, 2, n_jets)[:, None] + width_B * rng.normal(size=(n_jets, 200))
    phi = rng.uniform(-np.pi, np.pi, n_jets)[:, None] + width_B * rng.normal(size=(n_jets, 200))
    p4 = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=2)
    p4[np.arange(200) >= rng.integers(2, 80, n_jets)[:, None]] = 0
    table = pd.DataFrame(p4.reshape(n_jets, -1).astype(np.float32), columns=MOMENTA)
    truth = pd.DataFrame(np.zeros((n_jets, 4), np.float32), columns=TRUTH)
    flags = pd.DataFrame({"ttv": np.zeros(n_jets, np.int64), "is_signal_new": label_B})
    return pd.concat([table, truth, flags], axis=1)


def write_top_tagging(path: Path, n_jets: int = 0, seed: int = 0, table: pd.DataFrame | None = None) -> Path:
    """A file as published: a pandas table under the key ``table``, or parquet of the same columns."""
    table = table_of(n_jets, seed) if table is None else table
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".h5":
        table.to_hdf(path, key="table", mode="w", format="table")
    else:
        table.to_parquet(path, row_group_size=16)
    return path
