"""Three networks of one size on the same simulated jets, with the metrics of the JetClass tables.

    python -m benchmarks.comparison

trains each of them by ``python -m jetscale.train`` on the jets in ``data`` (one that is trained already is
taken as it is) and measures it by ``python -m jetscale.tagger evaluate``. It writes
``benchmarks/comparison.json`` and the table of ``docs/comparison.md``.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jetscale
from jetscale.common.files import write_json
from jetscale.runs.record import RunRecord
from jetscale.tagger.evaluate import evaluate
from jetscale.tagger.settings import Evaluate

NETWORKS = {"transformer": 16, "particlenet": 21, "deepsets": 37}
"""Networks, and the width at which each has 10,400 to 10,900 parameters."""
STUDY = "comparison"
STEPS = 1_000
"""Training steps of 32 jets."""
DOCS = Path(__file__).parents[1] / "docs"
RESULTS = Path(__file__).parent / "comparison.json"


def command(arch: str) -> list[str]:
    """Words that train a network, after ``python -m jetscale.train``."""
    return [
        "+experiment=scratch", "budget=laptop", f"study={STUDY}", "seed=1", f"finetune.steps={STEPS}",
        "finetune.max_flops=null", "finetune.lr=3e-3", "eval.jets=2000", f"eval.every={STEPS}",
        "eval.log_points=2", "eval.final_all=false", "tracking.wandb=disabled",
        f"model.arch={arch}", f"model.dim={NETWORKS[arch]}",
    ]  # fmt: skip


def trained(arch: str) -> Path | None:
    """The finished run of a network; None where there is none."""
    for done in sorted(Path("multirun", STUDY).rglob("done.json")):
        if f"arch: {arch}\n" in (done.parent / "config.yaml").read_text():
            return done.parent
    return None


def measured(run: Path) -> dict[str, Any]:
    """Sizes and metrics of a run, as ``comparison.json`` has them."""
    tagger = jetscale.load(run)
    record = tagger.run.record
    assert isinstance(record, RunRecord)
    assert record.constituents is not None
    assert record.jets is not None
    length = round(record.constituents / record.jets)
    found = evaluate(Evaluate(run=str(run)))
    return {
        "dim": tagger.network.dim, "n_params": record.n_params_total,
        "constituents": length, "operations": tagger.network.flops([length], backward=False),
        "jets": record.jets, "seconds": record.seconds, "test_jets": found["jets"],
        "weights": found["weights"], "metrics": found["metrics"],
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results in Markdown, a column for each network."""
    lines = ["| | " + " | ".join(f"`{name}`" for name in results) + " |", "|---" * (len(results) + 1) + "|"]
    told = {
        "width": lambda one: str(one["dim"]),
        "N": lambda one: f"{one['n_params']:,.0f}",
        "operations, forward, on a jet of {constituents} constituents": (
            lambda one: f"{one['operations'] / 1e6:.2g} million"
        ),
        "training jets": lambda one: f"{one['jets']:,.0f}",
        "test jets": lambda one: f"{one['test_jets']:,}",
        "test loss (nats)": lambda one: _with_error(one["metrics"]["loss"], 3),
        "accuracy": lambda one: _with_error(one["metrics"]["accuracy"], 3),
        "AUC, one versus one": lambda one: _with_error(one["metrics"]["auc_ovo"], 4),
    }
    first = next(iter(results.values()))["metrics"]
    for key in (key for key in first if key.startswith("rejection_")):
        name = f"{key.removeprefix('rejection_')}, Rej {first[key]['signal_efficiency']:.1%}".replace(
            ".0%", "%"
        )
        told[name] = lambda one, key=key: _rejection(one["metrics"][key])
    for name, cell in told.items():
        name = name.format(constituents=next(iter(results.values()))["constituents"])
        lines.append(f"| {name} | " + " | ".join(cell(one) for one in results.values()) + " |")
    return "\n".join(lines) + "\n"


def _with_error(number: dict[str, Any], digits: int) -> str:
    return f"{number['value']:.{digits}f} ± {number['sd']:.{digits}f}"


def _rejection(number: dict[str, Any]) -> str:
    if number["value"] is None:
        return f"over about {number['above']:,}"
    value, sd = (f"{float(f'{number[part]:.{digits}g}'):,g}" for part, digits in (("value", 3), ("sd", 2)))
    return f"{value} ± {sd} ({number['background_jets_kept']:,})"


def main() -> None:
    results: dict[str, dict[str, Any]] = {}
    for arch in NETWORKS:
        if trained(arch) is None:
            words = [sys.executable, "-m", "jetscale.train", *command(arch)]
            print(shlex.join(words))
            subprocess.run(words, check=True)
        run = trained(arch)
        assert run is not None
        results[arch] = measured(run)
    write_json(RESULTS, results)
    _write(DOCS / "comparison.md", "comparison", table(results))


def _write(page: Path, name: str, text: str) -> None:
    """Put `text` between the markers called `name`."""
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    whole, found = pattern.subn(lambda marks: marks[1] + text + marks[2], page.read_text())
    if not found:
        raise SystemExit(f"{page}: the markers of {name!r} are missing")
    page.write_text(whole)


if __name__ == "__main__":
    main()
