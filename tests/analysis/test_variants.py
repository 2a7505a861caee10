"""What runs vary besides subset, width and seed: such runs are fitted apart, or refused with both named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.answers.gain import gains
from jetscale.analysis.answers.rate_scan import analyse
from jetscale.analysis.settings import UncertaintySettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.analysis.tables.sources import saved, wandb_rows
from jetscale.analysis.tables.variants import (
    counterpart,
    settings_of,
    split_name,
    text_of,
    with_variants,
    without,
)
from jetscale.common.usage import UsageError

QUICK = FitSettings(uncertainty=UncertaintySettings(method="none"), multiverse=False)
BASE: dict[str, Any] = {
    "study": "s",
    "seed": 0,
    "subset": "scratch",
    "model": {"dim": 8, "depth": 4},
    "data": {"dir": "data", "store": None, "features": "paper", "workers": 0},
    "pretrain": {"composition": None, "steps": 100, "library": "multirun/backbones", "lr": 0.001},
    "finetune": {"lr": 0.001, "batch_size": 32, "steps": 1000, "schedule": "constant", "warmup": 10},
    "eval": {"jets": 1000, "every": 100},
    "tracking": {"wandb": "auto"},
    "device": {"precision": "auto", "threads": 1},
}


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(config))
    *sections, last = key.split(".")
    inner = copy
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return copy


def write(root: Path, name: str, config: dict[str, Any], shift: float = 0.0, **done: Any) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    dim, n_params = config["model"]["dim"], 45.0 * config["model"]["dim"] ** 2
    lines = [
        {
            "phase": "finetune", "step": step, "jets": 32 * step, "constituents": 1280 * step,
            "flops": 240.0 * n_params * 32 * step, "split": "test", "weights": "raw", "accuracy": 0.5,
            "loss": (0.6 + 30 / n_params**0.35 + 25 / (32 * step) ** 0.3) * np.exp(shift),
        }
        for step in np.unique(np.geomspace(100, 1000, 8).astype(int)).tolist()
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    facts = {"subset": config["subset"], "dim": dim, "seed": config["seed"], "n_params": {"total": n_params}}
    (folder / "done.json").write_text(json.dumps({**facts, "pretrain": None, **done}))


@pytest.mark.parametrize(
    ("key", "one", "two"),
    [
        ("finetune.lr", 0.001, 0.04),
        ("finetune.lr", {"table": {8: 0.003, 16: 0.002}}, 0.001),
        ("finetune.batch_size", 32, 128),
        ("finetune.schedule", "constant", "cosine"),
        ("finetune.steps", 1000, 2000),
        ("data.features", "paper", "part17"),
        ("model.depth", 2, 4),
        ("eval.jets", 1000, 2000),
        ("device.precision", "auto", "bf16-mixed"),
    ],
)
def test_whatever_varies_is_a_variant(tmp_path: Path, key: str, one: Any, two: Any) -> None:
    """The folders' names tell nothing: two studies joined."""
    for study, value in (("a", one), ("b", two)):
        for dim in (8, 16, 24, 32):
            config = changed(changed(BASE, key, value), "model.dim", dim)
            write(tmp_path, f"{study}/scratch/dim={dim}/seed=0", config)
    losses = load_losses(tmp_path)
    names = {f"scratch [{key}={text_of(value).replace(', ', ',')}]" for value in (one, two)}
    assert set(losses.groups()) == names
    assert set(losses.frame["subset"]) == {"scratch"}
    result = fit(losses, QUICK)
    assert set(result.subsets) == names
    assert [subset.n_runs for subset in result.subsets.values()] == [4, 4]
    assert any("2 variants are fitted apart" in text for text in result.warnings)


def test_networks_are_fitted_apart_and_a_run_that_names_none_is_a_transformer(tmp_path: Path) -> None:
    """Both networks have the same N here, so that nothing but the name of the network tells them apart."""
    named = changed(BASE, "model.arch", "transformer")
    for study, config, seed, shift in (
        ("before", BASE, 0, 0.0),
        ("now", named, 1, 0.0),
        ("other", changed(BASE, "model.arch", "deepsets"), 0, 0.2),
        ("again", changed(BASE, "model.arch", "deepsets"), 1, 0.2),
    ):
        for dim in (8, 16, 24, 32):
            one = changed(changed(config, "model.dim", dim), "seed", seed)
            write(tmp_path, f"{study}/dim={dim}", one, shift)
    losses = load_losses(tmp_path)
    names = ["scratch [model.arch=deepsets]", "scratch [model.arch=transformer]"]
    assert sorted(losses.groups()) == names
    studies = [{run.partition("/")[0] for run in losses.groups()[name]["run"]} for name in names]
    assert studies == [{"other", "again"}, {"before", "now"}]
    result = fit(losses, QUICK)
    assert sorted(result.subsets) == names
    assert [subset.n_runs for subset in result.subsets.values()] == [8, 8]


@pytest.mark.parametrize(
    ("section", "added", "named"),
    [
        ("callbacks", {"mine": {"_target_": "my_lab.Decay", "every": 10}}, "callbacks.mine._target_"),
        ("finetune", {**BASE["finetune"], "dataset": "top_tagging"}, "finetune.dataset"),
    ],
)
def test_a_callback_and_another_dataset_are_variants(
    tmp_path: Path, section: str, added: Any, named: str
) -> None:
    for seed, config in ((0, BASE), (1, {**BASE, section: added})):
        for dim in (8, 16):
            one = changed(changed(config, "model.dim", dim), "seed", seed)
            write(tmp_path, f"seed{seed}/dim={dim}", one, 0.0)
    names = sorted(load_losses(tmp_path).groups())
    assert len(names) == 2
    assert all(named in name for name in names)


def test_runs_that_name_the_dataset_that_was_meant_before_are_no_variant(tmp_path: Path) -> None:
    now = {**BASE, "finetune": {**BASE["finetune"], "dataset": "jetclass"}, "callbacks": {}}
    for seed, config in ((0, BASE), (1, now)):
        for dim in (8, 16):
            one = changed(changed(config, "model.dim", dim), "seed", seed)
            write(tmp_path, f"seed{seed}/dim={dim}", one, 0.0)
    assert list(load_losses(tmp_path).groups()) == ["scratch"]


@pytest.mark.parametrize(
    ("key", "two"),
    [
        ("data.dir", "elsewhere"), ("data.workers", 4), ("pretrain.library", "x"),
        ("tracking.wandb", "online"), ("study", "t"), ("eval.every", 50), ("device.threads", 8),
        ("pretrain.lr", 0.5),
    ],
)  # fmt: skip
def test_places_and_what_decides_no_loss_make_none(tmp_path: Path, key: str, two: Any) -> None:
    write(tmp_path, "one", BASE)
    write(tmp_path, "two", changed(changed(BASE, key, two), "seed", 1))
    losses = load_losses(tmp_path)
    assert list(losses.groups()) == ["scratch"]
    assert set(losses.frame["variant"]) == {""}


def test_two_runs_that_nothing_tells_apart_are_refused_with_both_names(tmp_path: Path) -> None:
    write(tmp_path, "one", BASE)
    write(tmp_path, "two", changed(BASE, "data.dir", "elsewhere"))
    with pytest.raises(UsageError, match=r"runs one and two are both of scratch, N = 2880, seed 0"):
        load_losses(tmp_path)
    assert list(load_losses(tmp_path, where="run != 'two'").groups()) == ["scratch"]


def test_one_table_of_rates_for_all_widths_is_one_setting(tmp_path: Path) -> None:
    for dim in (8, 16, 24):
        config = changed(BASE, "finetune.lr", {"table": {8: 3e-3, 16: 2e-3, 24: 1e-3}})
        write(tmp_path, f"{dim}", changed(config, "model.dim", dim), lr=0.003 * 8 / dim)
    assert list(load_losses(tmp_path).groups()) == ["scratch"]


def test_other_jets_of_the_same_settings_are_a_variant(tmp_path: Path) -> None:
    for study, seal in (("a", "1" * 64), ("b", "2" * 64), ("c", "")):
        for seed in (0, 1):
            jets = {"finetune/train": {"fingerprint": seal}, "finetune/test": {"fingerprint": "3" * 64}}
            facts = {"jets_from": jets} if seal else {}
            write(tmp_path, f"{study}/{seed}", changed(BASE, "seed", seed), **facts)
    names = {
        "scratch [jets.train=11111111]",
        "scratch [jets.train=22222222]",
        "scratch [jets.train=not given]",
    }
    assert set(load_losses(tmp_path).groups()) == names
    # a run that is not finished does not tell its jets: no difference where all others agree
    two = load_losses(tmp_path, where="run.str.startswith('a') or run == 'c/1'".replace("c/1", "a/1"))
    assert set(two.groups()) == {"scratch"}


def test_what_done_json_says_counts_where_the_config_is_silent(tmp_path: Path) -> None:
    bare = {"subset": "scratch", "seed": 0, "model": {"dim": 8}}
    write(tmp_path, "one", bare, lr=0.001)
    write(tmp_path, "two", bare, lr=0.04)
    assert set(load_losses(tmp_path).groups()) == {
        "scratch [finetune.lr=0.001]",
        "scratch [finetune.lr=0.04]",
    }


def sweep_of_two_subsets(root: Path, rates: dict[str, list[float]]) -> LossTable:
    for subset, chosen in rates.items():
        for rate in chosen:
            for dim in (8, 16):
                for seed in (0, 1):
                    config = changed(changed(BASE, "subset", subset), "finetune.lr", rate)
                    config = changed(changed(config, "model.dim", dim), "seed", seed)
                    if subset != "scratch":
                        config = changed(config, "pretrain.composition", {"QCD": 1})
                    shift = rate - 0.1 * (subset != "scratch")
                    write(root, f"{subset}/{rate}/{dim}/{seed}", config, shift)
    return load_losses(root)


def test_gain_and_differences_compare_the_same_settings(tmp_path: Path) -> None:
    losses = sweep_of_two_subsets(tmp_path, {"scratch": [0.001, 0.04], "qcd": [0.001, 0.04]})
    assert not any("subsets differ" in text for text in losses.warnings)
    found, warnings = gains(losses.groups(), None)
    assert warnings == []
    assert set(found) == {"qcd [finetune.lr=0.001]", "qcd [finetune.lr=0.04]"}
    for entries in found.values():
        for point in entries[0]["curve"]:
            assert point["difference"].value == pytest.approx(-0.1)
    pairs = fit(losses, QUICK).differences
    assert set(pairs) <= {f"qcd [finetune.lr={r}] - scratch [finetune.lr={r}]" for r in ("0.001", "0.04")}


def test_a_setting_that_differs_between_subsets_is_told(tmp_path: Path) -> None:
    losses = sweep_of_two_subsets(tmp_path, {"scratch": [0.04], "qcd": [0.001]})
    assert set(losses.groups()) == {"scratch", "qcd"}
    (warning,) = [text for text in losses.warnings if "subsets differ" in text]
    assert "subsets differ in finetune.lr (qcd 0.001, scratch 0.04)" in warning


def test_rates_are_the_axis_of_a_scan_and_other_settings_are_not(tmp_path: Path) -> None:
    for batch in (32, 64):
        for rate in (0.001, 0.002, 0.004):
            config = changed(changed(BASE, "finetune.lr", rate), "finetune.batch_size", batch)
            write(tmp_path, f"{batch}/{rate}", config, (np.log(rate / 0.002)) ** 2, lr=rate)
    found = analyse(tmp_path)
    assert set(found.best) == {"scratch [finetune.batch_size=32]", "scratch [finetune.batch_size=64]"}
    assert all(list(one.scan.rates) == [0.001, 0.002, 0.004] for (one,) in found.best.values())
    assert not any("finetune.lr" in text for text in found.warnings)


def fragment(run: str, config: dict[str, Any]) -> wandb_rows.Fragment:
    rows = [
        {"step": s, "jets": 32 * s, "flops": 1e6 * s, "finetune/test_loss": 2.0 - s / 1000} for s in (1, 2)
    ]
    return wandb_rows.Fragment(run=run, name=run, config=config, rows=rows)


def test_wandb_runs_have_variants_too_and_its_cache_keeps_them(tmp_path: Path) -> None:
    slow, fast = (changed(BASE, "finetune.lr", rate) for rate in (0.001, 0.04))
    wrapped = {key: {"value": value} if isinstance(value, dict) else value for key, value in fast.items()}
    fragments = [fragment("a", slow), fragment("b", wrapped)]
    losses = wandb_rows.of_runs({}, fragments, "w", "finetune", [])
    names = {"scratch [finetune.lr=0.001]", "scratch [finetune.lr=0.04]"}
    assert set(with_variants(losses).groups()) == names
    saved.write(tmp_path / "wandb.parquet", losses, None)
    assert set(load_losses(tmp_path / "wandb.parquet").groups()) == names


def test_saved_tables_keep_their_variants_and_older_ones_have_none(tmp_path: Path) -> None:
    losses = sweep_of_two_subsets(tmp_path / "runs", {"scratch": [0.001, 0.04]})
    saved.write(tmp_path / "losses.parquet", losses, None)
    again = load_losses(tmp_path / "losses.parquet")
    pd.testing.assert_frame_equal(again.frame, losses.frame)
    older = losses.frame.drop(columns="variant").query("lr != 1").copy()
    older["subset"] = "bsm_all@24992"  # as tables of November 2026 named them
    older["run"] = older["run"] + "x"
    facts = {"source": "s", "flops_per_param_sample": 240.0, "sample": "jet", "warnings": [], "blocks": 0}
    older.attrs = {"jetscale": facts}
    older.to_parquet(tmp_path / "older.parquet", index=False)
    table = load_losses(tmp_path / "older.parquet")
    assert set(table.frame["variant"]) == {""}
    assert list(table.groups()) == ["bsm_all@24992"]


def test_names_come_apart_again() -> None:
    assert split_name("scratch [finetune.lr=0.04, model.depth=2]") == (
        "scratch", "finetune.lr=0.04, model.depth=2",
    )  # fmt: skip
    assert split_name("bsm_all@24992") == ("bsm_all@24992", "")
    assert without("finetune.lr=0.04, model.depth=2", "finetune.lr") == "model.depth=2"
    names = ["a [x=1]", "a [x=2]", "scratch [x=1]", "scratch [x=2]", "b [pretrain.steps=3]"]
    assert [counterpart(name, names, "scratch") for name in names] == [
        "scratch [x=1]", "scratch [x=2]", None, None, None,
    ]  # fmt: skip


def test_settings_are_read_plainly() -> None:
    found = settings_of({"finetune": {"lr": "1e-3", "steps": 10.0}, "model": {"dim": 8}, "n_params": 3})
    assert found == {"finetune.lr": "0.001", "finetune.steps": "10"}
    assert settings_of({"finetune.lr": 0.001, "model.dim": 8}) == {"finetune.lr": "0.001"}
    assert text_of({"b": 1.0, "a": "${oc.env:HOME}"}) == "{a:${oc.env:HOME},b:1}"
