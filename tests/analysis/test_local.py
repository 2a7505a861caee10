from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jetscale.analysis import load_losses
from jetscale.analysis.__main__ import main
from jetscale.common.usage import UsageError

Sweep = Callable[..., Path]


def test_command_reports_every_quantity(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep(
        {"scratch": 0.5, "bsm_all": 0.3}, widths=(16, 32, 64, 128, 256, 512), seeds=2, evaluations=20
    )
    main([f"path={path}", "source=local", "uncertainty.replicates=60"])
    results = json.loads((path / "analysis" / "results.json").read_text())
    assert set(results["subsets"]) == {"scratch", "bsm_all"}
    for name, truth in (("scratch", 0.5), ("bsm_all", 0.3)):
        fit = results["subsets"][name]
        assert fit["method"] == "hierarchical"
        for key in ("L_inf", "A", "B", "alpha", "beta", "a", "b", "objective"):
            assert set(fit["approach3"][key]) == {"value", "sd", "ci95"}
        assert fit["approach3"]["a"]["value"] == pytest.approx(truth, abs=0.03)
        assert fit["approach3"]["certificate"]["converged"]
        assert fit["errors"]["test_jets"]["approach3.a"]["sd"] > 0
    low, high = results["differences"]["bsm_all - scratch"]["approach3.a"]["ci95"]
    assert low < -0.2 < high or abs(low + 0.2) < 0.03
    page = (path / "analysis" / "report.html").read_text()
    assert "0.517 ± 0.002" in page  # the paper's value beside ours
    assert "http://" not in page.replace("http://www.w3.org", "")
    for figure in ("losses", "gain"):
        assert (path / "analysis" / "figures" / f"{figure}.png").exists()
    assert "<h2>Gain over scratch</h2>" in page
    assert [entry["dim"] for entry in results["gain"]["bsm_all"]] == [16, 32, 64, 128, 256, 512]
    assert (path / "analysis" / "losses-blocks.parquet").exists()  # fitted again in test_refit.py
    assert "approach 3  a" in capsys.readouterr().out


def test_two_widths_give_reasons_not_exponents(sweep: Sweep) -> None:
    path = sweep({"scratch": 0.5}, widths=(8, 16), seeds=1, evaluations=8, jets=1e5)
    main([f"path={path}", "source=local"])
    results = json.loads((path / "analysis" / "results.json").read_text())
    fit = results["subsets"]["scratch"]
    for number in (2, 3):
        assert fit[f"approach{number}"]["a"] == {"value": None, "sd": None, "ci95": None}
    text = " ".join(results["warnings"])
    assert "2 sizes" in text
    assert "N takes 2" in text
    assert "no exponent" in (path / "analysis" / "report.html").read_text()


def test_optimum_at_the_edge_is_said(sweep: Sweep) -> None:
    # budgets this small are spent best on models below the smallest
    path = sweep({"scratch": 0.5}, widths=(128, 192, 256, 384, 512), seeds=1, evaluations=12, jets=1e6)
    main([f"path={path}", "source=local", "uncertainty.replicates=40", "report=false"])
    results = json.loads((path / "analysis" / "results.json").read_text())
    assert results["subsets"]["scratch"]["approach2"]["a"]["value"] is None
    assert "edge of the grid" in " ".join(results["warnings"])


def test_unfinished_runs_are_named(sweep: Sweep) -> None:
    path = sweep({"scratch": 0.5}, widths=(8, 16), seeds=2, evaluations=4)
    (path / "scratch/dim=8/seed=1/done.json").unlink()
    losses = load_losses(path)
    assert losses.frame["run"].nunique() == 3
    assert any("scratch/dim=8/seed=1 is not finished" in text for text in losses.warnings)
    assert load_losses(path, unfinished=True).frame["run"].nunique() == 4


def test_runs_behind_links_are_read_and_lost_ones_are_named(sweep: Sweep, tmp_path: Path) -> None:
    """A subset moved to a larger disk and linked to would be missing from the fit without a word."""
    path = sweep({"scratch": 0.5, "bsm_all": 0.3}, widths=(8, 16), seeds=1, evaluations=4)
    before = load_losses(path).frame
    (path / "bsm_all").rename(tmp_path / "moved")
    (path / "bsm_all").symlink_to(tmp_path / "moved")
    (path / "again").symlink_to(tmp_path / "moved")
    after = load_losses(path).frame
    assert sorted(after["subset"]) == sorted(before["subset"])
    assert sorted(after["loss"]) == sorted(before["loss"])
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"again: a link to .*/moved, which leads nowhere"):
        load_losses(path)


def test_torn_last_line_is_left_out_and_a_torn_middle_is_an_error(sweep: Sweep) -> None:
    path = sweep({"scratch": 0.5}, widths=(8,), seeds=1, evaluations=4)
    metrics = path / "scratch/dim=8/seed=0/metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + '{"phase": "finetu')
    assert len(load_losses(path).frame) == 8
    metrics.write_text('{"phase": \n' + whole)
    with pytest.raises(UsageError, match=r"metrics\.jsonl: line 1"):
        load_losses(path)


def test_definition_of_n_is_applied_to_compute_too(sweep: Sweep) -> None:
    from jetscale.analysis.settings import FitSettings
    from jetscale.analysis.tables.selection import select

    losses = load_losses(sweep({"scratch": 0.5}, widths=(8, 16), seeds=1, evaluations=4))
    blocks = select(losses.frame, FitSettings(n_params="blocks"), losses)
    total = select(losses.frame, FitSettings(), losses)
    np.testing.assert_allclose(blocks["n_params"], 0.8 * total["n_params"])
    np.testing.assert_allclose(blocks["flops"], 0.8 * total["flops"])
    with pytest.raises(UsageError, match="known kinds: blocks"):
        select(losses.frame, FitSettings(n_params="attention"), losses)


def test_no_run_below_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"metrics\.jsonl"):
        load_losses(tmp_path)


def test_pretraining_budgets_of_one_subset_are_told_apart(sweep: Sweep) -> None:
    path = sweep({"scratch": 0.5, "bsm_all": 0.3}, widths=(8, 16), seeds=2, evaluations=4)
    for seed, jets in ((0, 25_000), (1, 100_000)):
        for done in path.glob(f"bsm_all/*/seed={seed}/done.json"):
            content = json.loads(done.read_text())
            done.write_text(json.dumps({**content, "pretrain": {"jets": jets}}))
    losses = load_losses(path)
    assert set(losses.frame["subset"]) == {"scratch", "bsm_all"}
    assert set(losses.groups()) == {
        "scratch", "bsm_all [pretrain.jets=25000]", "bsm_all [pretrain.jets=100000]",
    }  # fmt: skip
    assert set(losses.groups()["bsm_all [pretrain.jets=25000]"]["seed"]) == {"0"}
    one = load_losses(path, where="pretrain_jets in (0, 25000)")
    assert set(one.groups()) == {"scratch", "bsm_all"}
    with pytest.raises(UsageError, match=r"where='dim > 99' selects none of"):
        load_losses(path, where="dim > 99")


@pytest.mark.parametrize(("given", "warned"), [(None, True), ("auto", True), ("32-true", False)])
def test_precisions_that_the_machines_chose_are_named(sweep: Sweep, given: str | None, warned: bool) -> None:
    path = sweep({"scratch": 0.5}, widths=(8, 16), seeds=2, evaluations=4)
    for seed, precision in ((0, "32-true"), (1, "bf16-mixed")):
        for done in path.glob(f"scratch/*/seed={seed}/done.json"):
            done.write_text(json.dumps({**json.loads(done.read_text()), "precision": precision}))
            if given is not None:
                with (done.parent / "config.yaml").open("a") as file:
                    file.write(f"\ndevice: {{precision: {given}}}\n")
    (text,) = [one for one in load_losses(path).warnings if "precision" in one] or [""]
    assert ("auto was 32-true in 2 runs, bf16-mixed in 2 runs" in text) == warned


def test_rows_of_runs_are_held_out(sweep: Sweep) -> None:
    path = sweep({"scratch": 0.5, "other": 0.4}, widths=(16, 32, 64, 128, 256), seeds=2, evaluations=12)
    flops = load_losses(path, where="weights == 'ema' and subset == 'scratch'").frame["flops"]
    cut = flops.quantile(0.8)
    quick = ("uncertainty.replicates=20", "multiverse=false", "report=false")
    main([f"path={path}", f"held_out=flops > {cut}", *quick])
    fit = json.loads((path / "analysis" / "results.json").read_text())["subsets"]["scratch"]
    assert fit["held_out"]["rows"] == (flops > cut).sum()
    with pytest.raises(UsageError, match="held-out rows are of scratch, which is not fitted"):
        main([f"path={path}", "held_out=subset == 'scratch'"])
