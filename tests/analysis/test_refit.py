"""A folder that the analysis wrote is fitted again to the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.plan import plan
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.sources import saved
from jetscale.analysis.tables.sources.block_files import read_joined, write_joined
from jetscale.analysis.tables.test_blocks import BlockLosses
from jetscale.common.usage import UsageError

Sweep = Callable[..., Path]
SHAPE: dict[str, Any] = {"widths": (16, 32, 64, 128), "seeds": 2, "evaluations": 10}


def analyse(path: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """Fit and save; what `python -m jetscale.analysis` does besides drawing."""
    errors = UncertaintySettings(replicates=40, test_jet_samples=30, profile=False)
    chosen = FitSettings(**{"multiverse": False, "uncertainty": errors, **settings})
    fit(load_losses(path), chosen).save(out)
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def without_source(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key != "source"}


@pytest.fixture
def finished(sweep: Sweep) -> Path:
    path = sweep({"scratch": 0.5, "bsm_all": 0.4}, **SHAPE)
    for done in path.rglob("done.json"):
        facts = json.loads(done.read_text())
        if facts["subset"] != "scratch":
            total = facts["n_params"]["total"]
            facts["pretrain"] = {"jets": 2e6, "constituents": 7e7, "n_params": {"total": 1.2 * total}}
        done.write_text(json.dumps(facts | {"lr": 1e-3, "flops": 1e12, "seconds": 7.0}))
    for config in path.rglob("config.yaml"):  # a warm-up that cuts points
        config.write_text(config.read_text().replace("warmup: 0", "warmup: 9000"))
    return path


def test_saved_folder_is_fitted_to_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"blocks": 250, "multiverse": True}
    first = analyse(finished, tmp_path / "a", **settings)
    second = analyse(tmp_path / "a/losses.parquet", tmp_path / "b", **settings)
    assert without_source(second) == without_source(first)
    assert first["subsets"]["bsm_all"]["errors"]["test_jets"]["approach3.a"]["sd"] > 0
    assert second["source"] == f"{tmp_path / 'a/losses.parquet'} (losses of {finished})"
    third = load_losses(tmp_path / "b/losses.parquet")
    assert third.source == f"{tmp_path / 'b/losses.parquet'} (losses of {finished})"
    for name in ("losses.parquet", "replicates.parquet"):
        frames = [pd.read_parquet(tmp_path / folder / name) for folder in "ab"]
        pd.testing.assert_frame_equal(frames[0], frames[1])
    plans = [str(plan(tmp_path / folder, gpu_hours=1e3)) for folder in "ab"]  # needs rate and pretrain_jets
    assert plans[0] == plans[1]


def test_only_blocks_of_the_fitted_weights_are_kept(finished: Path, tmp_path: Path) -> None:
    analyse(finished, tmp_path)
    kept, all_of = read_joined(tmp_path / "losses-blocks.parquet"), load_losses(finished).blocks
    assert kept is not None
    assert all_of is not None
    assert {weights for _, _, weights in kept.keys} == {"ema"}
    assert len(kept.keys) == len(all_of.keys) / 2
    whole = all_of.select(kept.keys)
    assert whole is not None
    np.testing.assert_array_equal(kept.loss_sum_EB, whole.loss_sum_EB)
    merged = kept.merged(100)
    assert merged.loss_sum_EB.dtype == np.float32
    np.testing.assert_allclose(
        merged.loss_sum_EB, whole.loss_sum_EB.reshape(-1, 100, 10).sum(axis=2), rtol=1e-6
    )
    raw = analyse(tmp_path / "losses.parquet", tmp_path / "raw", weights="raw")
    assert "scratch: test jets are not resampled" in " ".join(raw["warnings"])


def test_a_table_without_its_blocks_says_so(finished: Path, tmp_path: Path) -> None:
    losses = load_losses(finished)
    assert losses.blocks is not None
    table, blocks = tmp_path / "losses.parquet", tmp_path / "losses-blocks.parquet"
    saved.write(table, losses, losses.blocks)
    write_joined(blocks, losses.blocks.merged(500))
    with pytest.raises(UsageError, match=r"500 test blocks, but losses.parquet was written with 1000"):
        load_losses(table)
    blocks.unlink()
    found = load_losses(table)
    assert found.blocks is None
    assert found.warnings == [
        *losses.warnings,
        "losses-blocks.parquet, written with losses.parquet, is not beside it: test jets are not resampled",
    ]
    saved.write(table, losses, losses.blocks)
    saved.write(table, losses, None)  # an older file of blocks goes
    assert not blocks.exists()
    assert load_losses(table).warnings == losses.warnings


def test_a_foreign_table_keeps_its_cost_and_warnings(tmp_path: Path) -> None:
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e13, 6)))
    loss = 1.7 + 400 / N**0.34 + 400 / D**0.28
    pd.DataFrame({"params": N, "tokens": D * 1e-9, "flops": 3 * N * D, "loss": loss}).to_csv(
        tmp_path / "t.csv"
    )
    losses = load_losses(tmp_path / "t.csv")
    assert losses.flops_per_param_sample == pytest.approx(3e9)
    assert losses.warnings
    saved.write(tmp_path / "t.parquet", losses, None)
    again = load_losses(tmp_path / "t.parquet")
    assert (again.warnings, again.flops_per_param_sample) == (losses.warnings, losses.flops_per_param_sample)
    pd.testing.assert_frame_equal(again.frame, losses.frame)


def test_columns_by_name_read_it_as_any_table(finished: Path, tmp_path: Path) -> None:
    saved.write(tmp_path / "losses.parquet", load_losses(finished), None)
    losses = load_losses(
        tmp_path / "losses.parquet", columns={"N": "n_params_blocks"}, where="weights == 'ema'"
    )
    assert losses.sample == "sample"
    assert losses.frame["n_params"].min() == pytest.approx(0.8 * 40 * 16**2)


@pytest.mark.parametrize("count", [-1, 20, 300, 2000])
def test_blocks_that_cannot_be_joined(count: int) -> None:
    sums = np.ones((1, 1000), dtype=np.float32)
    with pytest.raises(
        UsageError, match=rf"blocks={count}: 1000 test blocks are joined to 50, 100, 125, 200"
    ):
        BlockLosses([("run", 1.0, "ema")], sums, sums).merged(count)


def test_another_file_under_that_name(tmp_path: Path) -> None:
    pd.DataFrame({"run": ["a"], "step": [1.0]}).to_parquet(tmp_path / "losses-blocks.parquet")
    with pytest.raises(UsageError, match="lacks the column weights, jets, loss_sum"):
        read_joined(tmp_path / "losses-blocks.parquet")
