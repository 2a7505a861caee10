from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jetscale.analysis import FitSettings, fit, load_losses, plan
from jetscale.analysis.__main__ import main as analyse
from jetscale.analysis.answers import laws as sources
from jetscale.analysis.answers.allocation import (
    compute_for_loss,
    compute_multiplier,
    nearest_width,
    size_range,
)
from jetscale.analysis.answers.prediction import on_surface
from jetscale.analysis.fitting.cost import Cost
from jetscale.analysis.fitting.surface import Surfaces
from jetscale.analysis.plan import main
from jetscale.analysis.settings import JointSettings, UncertaintySettings
from jetscale.common.usage import UsageError
from tests.warm import WarmServer

Shared = Callable[[str], Path]
LAW = Surfaces.single(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)
K = float(np.log(6))
COST = Cost.constant(6.0)


def test_chinchilla_allocation(shared: Shared) -> None:
    """shared/facts/scaling.md, section 4: allocation at Gopher's budget."""
    settings = FitSettings(drop_largest=5, multiverse=False, uncertainty=UncertaintySettings(method="runs"))
    found = plan(fit(load_losses(shared("chinchilla_epoch.csv")), settings), 5.76e23).allocations["all"]
    assert found.N.value == pytest.approx(7.32e10, rel=0.01)
    assert found.D.value == pytest.approx(1.312e12, rel=0.01)
    assert found.D_over_N.value == pytest.approx(17.9, rel=0.02)
    assert found.loss.value == pytest.approx(1.9739, abs=6e-4)
    for quantity, low, high in (
        (found.N, 5.26e10, 1.09e11), (found.D, 8.78e11, 1.83e12), (found.D_over_N, 8.0, 34.7),
        (found.loss, 1.953, 2.002),
    ):  # fmt: skip
        assert quantity.ci95 == pytest.approx((low, high), rel=0.06)
    assert [end / found.N.value for end in found.N_near_best] == pytest.approx([0.25, 4.0], rel=0.02)
    assert any("1.6 decades" in flag for flag in found.flags)
    assert any("no interior optimum" in flag for flag in found.flags)


@pytest.mark.parametrize(
    "before",
    [
        "import jetscale.analysis.plan",
        "from jetscale.analysis import plan",
        "from jetscale.analysis.plan import main",
        "",
    ],
)
def test_plan_is_the_function_and_the_command_whatever_was_imported_before(
    before: str, warm: WarmServer, tmp_path: Path
) -> None:
    script = f"""import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "jetscale"]:
    del sys.modules[name]  # as in a new process, all but the libraries
{before}
import inspect
from jetscale.analysis import plan
import jetscale.analysis.plan as command
assert plan is command
assert callable(command.main) and command.Command.__name__ == "Command"
assert list(inspect.signature(plan).parameters)[:2] == ["fitted", "budget"]
try:
    plan("no such folder", 1e17)
except Exception as error:
    print(type(error).__name__, error)
"""
    (tmp_path / "script.py").write_text(script)
    done = warm.run(str(tmp_path / "script.py"), [], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("UsageError no such folder: no results.json")


def test_flat_optimum() -> None:
    low, high = size_range(LAW, float(np.log(1e21)), COST, 0.001)
    best = COST.optimum(LAW, np.log(np.array([1e21])))[0][0, 0]
    for end in (low[0], high[0]):
        loss = LAW.log_loss(np.array([end]), np.array([np.log(1e21) - K - end]))[0, 0]
        assert np.exp(loss - COST.optimal_log_loss(LAW, np.log(np.array([1e21])))[0, 0]) == pytest.approx(
            1.001
        )
    assert low[0] < best < high[0]


def test_loss_to_compute_inverts_compute_to_loss() -> None:
    log_C = np.log(np.array([1e20]))
    loss = float(np.exp(COST.optimal_log_loss(LAW, log_C)[0, 0]))
    assert compute_for_loss(LAW, loss, COST)[0] == pytest.approx(log_C[0], rel=1e-10)
    assert np.isinf(compute_for_loss(LAW, 1.7, COST)[0])


def test_multiplier_of_a_law_shifted_in_compute() -> None:
    """Scaling N's and D's terms as if every run had three times the compute multiplies compute by 3."""
    gamma = 0.35 * 0.37 / 0.72
    factor = 3.0 ** (-gamma)
    better = Surfaces.single(E=1.8, A=480.0 * factor, B=2100.0 * factor, alpha=0.35, beta=0.37)
    multiplier = compute_multiplier(better, COST, LAW, COST, float(np.log(1e20)))
    assert np.exp(multiplier[0]) == pytest.approx(3.0)


def test_nearest_width_interpolates_the_parameter_count() -> None:
    dims = np.array([8.0, 16.0, 64.0, 128.0])
    sizes = 40 * dims**2 + 30 * dims + 10
    assert nearest_width(float(np.log(40 * 96**2)), dims, sizes) == (96, pytest.approx(40 * 96**2 + 2890))
    assert nearest_width(10.0, dims[:2], sizes[:2]) is None


def test_command_from_a_saved_sweep(
    sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep({"scratch": 0.5, "bsm_all": 0.3}, widths=(16, 32, 64, 128, 256), seeds=2, evaluations=15)
    quick = ("uncertainty.replicates=40", "multiverse=false", "report=false")
    analyse([f"path={path}", "source=local", *quick])
    capsys.readouterr()
    results, out = path / "analysis", tmp_path / "plan.json"
    main([f"results={results}", "budget=1e15", "simulate_seconds=0.0117", f"out={out}"])
    text = capsys.readouterr().out
    assert "nearest width: dim =" in text
    assert "compute the reference needs" in text
    written = json.loads(out.read_text())["allocations"]
    for name, a in (("scratch", 0.5), ("bsm_all", 0.3)):
        assert written[name]["tenfold"]["N"]["value"] == pytest.approx(10**a, rel=0.1)
        assert written[name]["N"]["ci95"][0] < written[name]["N"]["value"] < written[name]["N"]["ci95"][1]
    main([f"results={results}", f"loss={written['scratch']['loss']['value']}", "subset=scratch"])
    assert "C = 1" in capsys.readouterr().out
    for wrong in ([], ["budget=1e15", "loss=1.0"], ["budget=1e15", "subset=nobody"], ["gpu_hours=1"]):
        with pytest.raises(UsageError):
            main([f"results={results}", *wrong])


STUDY = Path(__file__).resolve().parents[2] / "studies/laptop/tuned_rate"


def test_a_plan_stands_on_what_was_fitted_not_on_all_that_was_measured() -> None:
    """N by another definition, averaged weights alone, and no warm-up: the table holds all of that."""
    losses = load_losses(STUDY / "losses.parquet", where="subset == 'scratch'")
    assert losses.frame["jets"].min() < 500
    settings = FitSettings(
        n_params="head", multiverse=False, joint=JointSettings(on=False),
        uncertainty=UncertaintySettings(replicates=20, profile=False, test_jet_samples=0),
    )  # fmt: skip
    fitted = fit(losses, settings)
    sizes = losses.frame.groupby("dim")["n_params_head"].first()
    found = plan(fitted, budget=3e9).allocations["scratch"]
    assert found.width_N == pytest.approx(sizes[found.width])
    assert sizes.min() < found.N.value < sizes.max()
    assert not any("outside" in flag for flag in found.flags)
    laws = sources.of(fitted)
    law = laws.laws["scratch"]
    assert law.N_range == (sizes.min(), sizes.max())
    curves = fitted.subsets["scratch"].task.curves
    assert law.D_range[0] == pytest.approx(np.exp(curves.log_D.min()))
    assert law.D_range[1] == losses.frame["jets"].max()
    rows = losses.frame[losses.frame["weights"] == "ema"]
    assert 0 < len(law.row_D) < len(rows)
    (below,) = (flag for flag in on_surface(law, "jet", {"N": 300.0, "D": 480.0}, ()).flags if "D (" in flag)
    assert "below the smallest fitted" in below


def test_a_saved_fit_says_the_same_as_the_one_in_memory(tmp_path: Path) -> None:
    losses = load_losses(STUDY / "losses.parquet", where="subset in ('scratch', 'bsm_all')")
    settings = FitSettings(
        multiverse=False, uncertainty=UncertaintySettings(replicates=20, profile=False, test_jet_samples=0)
    )
    fitted = fit(losses, settings)
    fitted.save(tmp_path)
    assert str(plan(fitted, budget=1e12)) == str(plan(tmp_path, budget=1e12))


def test_settings_that_the_answer_does_not_hang_on_are_refused(tmp_path: Path) -> None:
    for words, message in (
        (["budget=1e21", "price.simulate=1e12"], "price.simulate=1e\\+12 has nothing to do with budget"),
        (["runs_for=a", "budget=1e9", "N=3e6"], "N=3000000.0 has nothing to do with runs_for"),
        (["runs_for=a", "gpu_hours=10"], "gpu_hours=10.0 has nothing to do with runs_for"),
        (["total_budget=1e9", "reference=qcd"], "reference=qcd has nothing to do with total_budget"),
        (["N=1e6", "D=1e9", "simulate_seconds=1"], "simulate_seconds=1.0 has nothing to do with N, D and C"),
        (["budget=1e9", "rate=1e12"], "rate=1000000000000.0 has nothing to do with budget"),
    ):
        with pytest.raises(UsageError, match=message):
            main([f"results={tmp_path}", *words])
    with pytest.raises(UsageError, match="give exactly one of budget=FLOPs"):
        main([f"results={STUDY}", "rate=1e12"])
    with pytest.raises(UsageError, match="reference=scrach: no such subset; there are bsm_all"):
        plan(STUDY, 1e12, reference="scrach")


def test_a_loss_that_one_subset_cannot_reach_is_planned_for_the_others(tmp_path: Path) -> None:
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
    lines = ["subset,N,D,loss"]
    for name, floor in (("high", 1.9), ("low", 1.5)):
        lines += [f"{name},{n},{d},{floor + 400 / n**0.4 + 900 / d**0.4}" for n, d in zip(N, D, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    settings = FitSettings(
        multiverse=False, joint=JointSettings(on=False), uncertainty=UncertaintySettings(method="none")
    )
    fitted = fit(load_losses(tmp_path / "t.csv"), settings)
    found = plan(fitted, loss=1.7)
    assert list(found.allocations) == ["low"]
    assert "loss 1.7 is not above the fitted floor L_inf = 1.9" in found.missing["high"]
    assert "high: no plan (loss 1.7 is not above" in str(found)
    with pytest.raises(UsageError, match=r"high: loss 1\.4 is not above .*; low: loss 1\.4 is not above"):
        plan(fitted, loss=1.4)


def test_a_fit_is_made_of_a_loss_table() -> None:
    import pandas as pd

    frame = pd.DataFrame({"N": [1.0], "D": [1.0], "loss": [1.0]})
    with pytest.raises(UsageError, match="not a DataFrame; write a DataFrame to a file first"):
        load_losses(frame)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not a DataFrame: fit\\(load_losses"):
        fit(frame)  # type: ignore[arg-type]
