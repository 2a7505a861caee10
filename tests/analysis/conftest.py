from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis.checks.synthetic import Noise, curves_table
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.runs.layout import N_BLOCKS
from tests.analysis.wandb_server import Server

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "scaling"


@pytest.fixture
def shared() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        path = SHARED / name
        if not path.is_file():
            pytest.skip(f"{path} is missing: reference data of the developers")
        return path

    return find


def surface(a: float, alpha: float = 0.3, E: float = 0.35) -> Surfaces:
    """A jet-like surface with exponent a and an optimum inside the paper's widths."""
    beta = alpha * a / (1 - a)
    middle_N, middle_D = np.log(2e5), np.log(1.2e7)
    log_A = np.log(0.15) + alpha * middle_N
    log_B = np.log(0.15 * alpha / beta) + beta * middle_D
    return Surfaces.from_theta(np.array([[log_A, log_B, np.log(E), alpha, beta]]))


@pytest.fixture
def make_surface() -> Callable[..., Surfaces]:
    return surface


def write_run_directories(table: LossTable, root: Path) -> None:
    """Run directories as the tracking room writes them, from a synthetic table."""
    blocks = table.blocks
    rows = {key: i for i, key in enumerate(blocks.keys)} if blocks else {}
    for run, frame in table.frame.groupby("run"):
        folder = root / str(run)
        folder.mkdir(parents=True)
        first = frame.iloc[0]
        lines = [
            {
                "phase": "finetune", "step": round(r.step), "jets": r.jets, "constituents": r.constituents,
                "flops": r.flops, "split": "test", "weights": w, "loss": r.loss * factor, "accuracy": 0.5,
                "lr": 1e-3, "seconds": 1.0,
            }
            for r in frame.sort_values("step").itertuples()
            for w, factor in (("raw", 1.02), ("ema", 1.0))
        ]  # fmt: skip
        train = dict(lines[0], split="train")
        (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in [train, *lines]) + "\n")
        if blocks is not None:
            parts = []
            for r in frame.itertuples():
                row = rows[(str(run), float(r.step), "ema")]
                for w, factor in (("raw", 1.02), ("ema", 1.0)):
                    columns = {
                        "phase": "finetune", "step": round(r.step), "weights": w,
                        "block": np.arange(N_BLOCKS),
                        "jets": blocks.jets_EB[row].astype(int), "loss_sum": factor * blocks.loss_sum_EB[row],
                    }  # fmt: skip
                    parts.append(pd.DataFrame(columns))
            pd.concat(parts).to_parquet(folder / "test_blocks.parquet")
        N = float(first["n_params"])
        config = (
            f"subset: {first['subset']}\nseed: {first['seed']}\nmodel: {{dim: {first['dim']:.0f}}}\n"
            f"finetune: {{batch_size: 128, warmup: 0, steps: {frame['step'].max():.0f}}}\n"
        )
        (folder / "config.yaml").write_text(config)
        done = {
            "subset": first["subset"], "dim": int(first["dim"]), "seed": int(first["seed"]),
            "batch_size": 128,
            "n_params": {"embedding": 0.1 * N, "blocks": 0.8 * N, "norms": 0.0, "head": 0.1 * N, "total": N},
            "jets": float(frame["jets"].max()), "pretrain": None,
        }  # fmt: skip
        (folder / "done.json").write_text(json.dumps(done))


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Path]:
    """Run directories of a small sweep; keywords as in `curves_table`."""

    def make(exponents: dict[str, float], noise: Noise | None = None, **shape: object) -> Path:
        surfaces = {name: surface(a) for name, a in exponents.items()}
        rng = np.random.default_rng(3)
        table = curves_table(surfaces, noise or Noise(test_jets=20_000), rng, **shape)
        write_run_directories(table, tmp_path / "sweep")
        return tmp_path / "sweep"

    return make


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()
