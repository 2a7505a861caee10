from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from jetscale.analysis.answers.rate_rule import best, rule, run_variance, scan, subsets_differ
from jetscale.analysis.rates import main
from jetscale.common.usage import UsageError
from jetscale.training.learning_rates import learning_rate

GRID = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
BEND = 0.03  # ln L = level + BEND (ln(rate / best))^2
Law = Callable[[int], float]


def falling(dim: int) -> float:
    return 3e-3 * (dim / 16) ** -0.5


def write_run(
    folder: Path, subset: str, dim: int, seed: int, rate: float, losses: dict[str, float], jets: int = 32_000
) -> None:
    """A run directory as `jetscale.train` leaves it, reduced to what tells a run."""
    folder.mkdir(parents=True)
    lines = [
        {"phase": "finetune", "step": jets // share // 32, "jets": jets // share, "constituents": 40 * jets,
         "flops": 240.0 * dim * jets / share, "split": "test", "weights": weights, "loss": loss * share}
        for share in (2, 1) for weights, loss in losses.items()
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / "config.yaml").write_text(
        f"subset: {subset}\nseed: {seed}\nmodel: {{dim: {dim}}}\nfinetune: {{lr: {rate}, steps: 1000}}\n"
    )
    done = {"subset": subset, "dim": dim, "seed": seed, "n_params": {"total": 40 * dim**2}, "pretrain": None}
    (folder / "done.json").write_text(json.dumps(done | {"jets": jets, "lr": rate}))


def write_sweep(
    root: Path,
    subsets: dict[str, Law],
    widths: Iterable[int] = (8, 16, 32),
    seeds: Iterable[int] = (0, 1, 2),
    rates: Iterable[float] = GRID,
    noise: float = 0.0,
) -> Path:
    rng = np.random.default_rng(4)
    for subset, law in subsets.items():
        for dim in widths:
            for seed in seeds:
                for rate in rates:
                    distance = np.log(rate / law(dim))
                    log_L = 0.3 + 0.05 * seed + BEND * distance**2 + noise * rng.standard_normal()
                    folder = root / subset / f"dim={dim}" / f"seed={seed}" / f"finetune.lr={rate:g}"
                    ema = float(np.exp(log_L))
                    write_run(folder, subset, dim, seed, rate, {"raw": 1.1 * ema * rate**0.02, "ema": ema})
    return root


def analysed(path: Path, *arguments: str) -> dict[str, Any]:
    main([f"path={path}", *arguments])
    found: dict[str, Any] = json.loads((path / "analysis" / "rates.json").read_text())
    return found


def test_known_law_comes_back_and_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(tmp_path / "sweep", {"scratch": falling, "bsm_all": lambda dim: 1.5e-3})
    found = analysed(path)
    for subset, law in (("scratch", falling), ("bsm_all", lambda dim: 1.5e-3)):
        for width in found["subsets"][subset]["widths"]:
            best_rate = law(width["dim"])
            assert width["status"] == "interior"
            assert width["best"]["value"] == pytest.approx(best_rate)
            expected = BEND * np.log(1e-3 / best_rate) ** 2
            assert width["penalty_of_paper_rate"]["value"] == pytest.approx(expected)
    assert found["subsets"]["scratch"]["rule"]["power"]["value"] == pytest.approx(-0.5)
    assert found["subsets"]["scratch"]["rule"]["dim"] == 16
    assert found["subsets"]["bsm_all"]["rule"]["power"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["joint"]["power"]["value"] == pytest.approx(-0.25, abs=0.2)
    assert found["subsets_differ"]["p_value"] < 1e-6
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.split("scratch: base")[1].splitlines() if "power:-0.5" in line)
    (word,) = shlex.split(line)  # as a shell hands it over
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == "finetune.lr"
    for dim in (8, 64):
        assert learning_rate(override.value(), dim) == pytest.approx(falling(dim), rel=1e-3)
    assert (path / "analysis" / "figures" / "rates.png").stat().st_size > 10_000


def test_raw_weights_have_their_own_optimum(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "sweep", {"scratch": falling}, widths=(16,))
    (width,) = analysed(path, "weights=raw")["subsets"]["scratch"]["widths"]
    assert width["best"]["value"] == pytest.approx(3e-3 * np.exp(-0.02 / (2 * BEND)))
    with pytest.raises(UsageError, match="weights=swa: must be one of raw, ema"):
        analysed(path, "weights=swa")


def test_a_lowest_loss_at_the_end_is_a_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laws: dict[str, Law] = {"low": lambda dim: 2e-4, "high": lambda dim: 2e-2}
    found = analysed(write_sweep(tmp_path / "sweep", laws, widths=(8, 16), seeds=(0,)))
    for subset, side, bound in (("low", "below", GRID[0]), ("high", "above", GRID[-1])):
        for width in found["subsets"][subset]["widths"]:
            assert (width["status"], width["optimum"], width["best"]) == ("edge", side, None)
            assert width["bound"] == pytest.approx(bound)
            assert width["penalty_of_paper_rate"]["value"] > 0
        assert found["subsets"][subset]["rule"] is None
    assert found["joint"] is None
    printed = capsys.readouterr().out
    assert "edge: above or at 0.008" in printed
    assert "at least +" in printed
    assert "high: no rule; it needs two widths with an optimum inside the scanned rates" in printed


def test_one_rate_and_one_width_make_no_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (width,) = analysed(write_sweep(tmp_path / "a", {"scratch": falling}, (16,), rates=(2e-3,)))["subsets"][
        "scratch"
    ]["widths"]
    assert (width["status"], width["best"], width["bound"]) == ("one rate", None, pytest.approx(2e-3))
    assert width["penalty_of_paper_rate"]["value"] is None
    found = analysed(write_sweep(tmp_path / "b", {"scratch": falling}, (16,)))["subsets"]["scratch"]
    assert found["widths"][0]["best"]["value"] == pytest.approx(3e-3)
    assert found["rule"] is None
    assert "finetune.lr={" not in capsys.readouterr().out


def test_a_missing_seed_does_not_shift_the_optimum(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "sweep", {"scratch": falling})  # seed 2 is 10% above seed 0
    (path / "scratch/dim=16/seed=2/finetune.lr=0.002/done.json").unlink()
    found = analysed(path)
    width = found["subsets"]["scratch"]["widths"][1]
    assert width["seeds"] == [3, 3, 2, 3, 3]
    assert width["best"]["value"] == pytest.approx(3e-3)
    assert "scratch dim=16: rate 0.002 lacks seed 2" in found["warnings"]
    assert any("finetune.lr=0.002 is not finished" in text for text in found["warnings"])


def test_one_seed_gives_values_without_errors(tmp_path: Path) -> None:
    found = analysed(write_sweep(tmp_path / "sweep", {"scratch": falling}, widths=(8, 16), seeds=(1,)))
    assert found["run_sd"] is None
    assert found["subsets"]["scratch"]["widths"][0]["best"]["ci95"] is None
    assert found["subsets"]["scratch"]["rule"]["power"] == {
        "value": pytest.approx(-0.5), "sd": None, "ci95": None,
    }  # fmt: skip


def test_runs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "sweep", {"scratch": falling}, widths=(8,), seeds=(0,))
    write_run(path / "scratch/dim=8/seed=0/batch", "scratch", 8, 0, 2e-3, {"ema": 1.0, "raw": 1.0})
    with pytest.raises(
        UsageError, match=r"seed=0/batch and .*finetune\.lr=0\.002 are both of .* no setting tells them"
    ):
        analysed(path)
    config = path / "scratch/dim=8/seed=0/batch/config.yaml"
    config.write_text(config.read_text().replace("lr: 0.002", "lr: {table: {8: 3e-3}}"))
    done = config.with_name("done.json")
    facts = json.loads(done.read_text())
    del facts["lr"]
    done.write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="seed=0/batch: its learning rate is not known"):
        analysed(path)
    longer = write_sweep(tmp_path / "longer", {"scratch": falling}, widths=(8,), seeds=(0,))
    write_run(longer / "more", "scratch", 8, 1, 2e-3, {"ema": 1.0, "raw": 1.0}, jets=64_000)
    with pytest.raises(UsageError, match="runs of scratch dim=8 end at 32,000 to 64,000 jets"):
        analysed(longer)
    with pytest.raises(UsageError, match=r"path=\.\.\. is needed"):
        main([])


def test_errors_hold_the_truth() -> None:
    """Intervals of the power, and of the best rate, from noisy losses of three seeds; the test's level."""
    rng = np.random.default_rng(8)
    inside_power = inside_rate = rejected = made = 0
    widths, trials = (8, 16, 32, 64), 300
    for _ in range(trials):
        groups = []
        for subset in ("scratch", "bsm"):
            scans = []
            for dim in widths:
                rates, seeds = np.tile(GRID, 3), np.repeat(["0", "1", "2"], len(GRID))
                log_L = 10 * BEND * np.log(rates / falling(dim)) ** 2 + 0.05 * (seeds == "1")
                scans.append(scan(subset, dim, rates, list(seeds), log_L + 0.02 * rng.standard_normal(15)))
            groups.append(scans)
        variance, dof = run_variance([one for scans in groups for one in scans])
        found = [[best(one, variance, dof) for one in scans] for scans in groups]
        law = rule(found[0], dof, 16)
        test = subsets_differ(found, dof, 16)
        if law is None or test is None or not law.power.ci95:
            continue
        made += 1
        inside_power += law.power.ci95[0] <= -0.5 <= law.power.ci95[1]
        one = found[0][1].rate(dof)
        inside_rate += one.ci95 is not None and one.ci95[0] <= falling(16) <= one.ci95[1]
        rejected += test["p_value"] < 0.05
    assert made > 0.95 * trials
    assert 0.92 <= inside_power / made <= 1.0
    assert 0.92 <= inside_rate / made <= 0.99
    assert 0.01 <= rejected / made <= 0.09


@pytest.mark.parametrize("command", ["analysis", "analysis.rates", "analysis.plan"])
def test_help_is_quick(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"jetscale.{command}", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m jetscale.{command}" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"torch", "scipy", "matplotlib", "pandas", "rich"}


@pytest.mark.parametrize(("seeds", "named"), [((0, 1, 2), ["seed=1"]), ((0, 1), ["seed=0", "seed=1"])])
def test_a_diverged_run_is_named(tmp_path: Path, seeds: tuple[int, ...], named: list[str]) -> None:
    """Of two seeds it cannot be told which is off: both are as far from their mean."""
    path = write_sweep(tmp_path / "sweep", {"scratch": falling}, widths=(8, 16), seeds=seeds, noise=0.01)
    assert not [text for text in analysed(path)["warnings"] if "explain" in text]
    lost = path / "scratch/dim=16/seed=1/finetune.lr=0.008"
    shutil.rmtree(lost)
    write_run(lost, "scratch", 16, 1, 8e-3, {"raw": 5.3, "ema": 5.3})
    (text,) = (text for text in analysed(path)["warnings"] if "explain" in text)
    names = " or ".join(f"scratch/dim=16/{seed}/finetune.lr=0.008" for seed in named)
    assert f"run {names} ends at a loss that is a factor" in text
