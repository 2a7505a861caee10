"""What a fit returns, and results.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jetscale.analysis.fitting.approach import EXPONENTS, approaches
from jetscale.analysis.fitting.numbers import Quantity, plain
from jetscale.common.files import write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jetscale.analysis.errors.one_variable import LawFit
    from jetscale.analysis.errors.resampling import Replicates
    from jetscale.analysis.fitting.approach import Draws
    from jetscale.analysis.fitting.certificate import Certificate
    from jetscale.analysis.fitting.surface import Surfaces
    from jetscale.analysis.fitting.task import Task
    from jetscale.analysis.tables.loss_table import LossTable
    from jetscale.analysis.tables.test_blocks import BlockLosses, Key

FORMAT_VERSION = 1


@dataclass(frozen=True)
class SubsetFit:
    """One subset's fits.

    Attributes
    ----------
    name : subset.
    n_runs, n_sizes, n_points : what was fitted.
    approaches : by approach ("approach1"), its quantities by name (a, b, ...); a value is None where the data
        do not determine it, and `warnings` says why.
    method, dof : model of errors behind sd and ci95, and its degrees of freedom.
    errors : the same quantities under other models of errors, by method ("test_jets", "profile").
    certificate : of approach 3; None where it was not fitted.
    details : per-approach facts that are not quantities (slices, envelope, lack of fit, ...).
    warnings : what a reader must know.
    surface : approach 3's fit, whatever its parameters are called above; None where it was not fitted.
    law : of one variable, where the points carry no law of N and D; None elsewhere.
    """

    name: str
    n_runs: int
    n_sizes: int
    n_points: int
    approaches: dict[str, dict[str, Quantity]]
    method: str
    dof: float
    errors: dict[str, dict[str, Quantity]]
    certificate: Certificate | None
    details: dict[str, Any]
    warnings: list[str]
    draws: Draws = field(repr=False, default_factory=dict)
    task: Task | None = field(repr=False, default=None)
    surface: Surfaces | None = field(repr=False, default=None)
    replicates: Replicates | None = field(repr=False, default=None)
    law: LawFit | None = field(repr=False, default=None)

    def __str__(self) -> str:
        counts = f"{self.n_runs} runs, {self.n_sizes} sizes, {self.n_points} points"
        lines = [f"{self.name}: {counts}; errors: {self.method}"]
        for one in approaches():
            for name in EXPONENTS:
                quantity = self.approaches[one.name].get(name)
                if quantity is not None:
                    lines.append(f"  {one.label}  {name} = {quantity}")
        lines += [
            f"  approach 3  {name} = {quantity}"
            for name, quantity in self.approach3.items()
            if name not in (*EXPONENTS, "objective")
        ]
        lines += [] if self.law is None else [f"  {self.law}"]
        return "\n".join(lines + [f"  warning: {text}" for text in self.warnings])

    def approach(self, number: int) -> dict[str, Quantity]:
        """Quantities of approach 1, 2 or 3 by name."""
        return self.approaches[f"approach{number}"]

    @property
    def approach1(self) -> dict[str, Quantity]:
        """Quantities of the envelope."""
        return self.approach(1)

    @property
    def approach2(self) -> dict[str, Quantity]:
        """Quantities of the isoFLOP parabolas."""
        return self.approach(2)

    @property
    def approach3(self) -> dict[str, Quantity]:
        """Quantities of the surface."""
        return self.approach(3)

    def to_json(self) -> dict[str, Any]:
        """Entry of results.json."""
        entries = {name: _quantities(group) for name, group in self.approaches.items()}
        entries["approach3"]["certificate"] = None if self.certificate is None else asdict(self.certificate)
        for name, entry in entries.items():
            entry |= self.details.get(name, {})
        if self.law is not None:
            entries["law"] = self.law.to_json()
        return {
            "runs": self.n_runs,
            "sizes": self.n_sizes,
            "points": self.n_points,
            **entries,
            "method": self.method,
            "dof": self.dof,
            "errors": {method: _quantities(group) for method, group in self.errors.items()},
            "warnings": self.warnings,
        } | {key: value for key, value in self.details.items() if key not in entries}


@dataclass(frozen=True)
class FitResult:
    """Everything `fit` found; prints as a table.

    Attributes
    ----------
    subsets : one fit a subset.
    differences : "X - Y" to quantities by name ("approach3.a"), from paired replicates.
    settings : what was asked, as plain values.
    warnings : of the table and of the comparison; each subset has its own too.
    losses : the loss table that was fitted.
    details : tables that concern all subsets (multiverse, joint fit, laws of transfer).
    joint_draws : replicates of the joint fit and of the laws of transfer.
    """

    subsets: dict[str, SubsetFit]
    differences: dict[str, dict[str, Quantity]]
    settings: dict[str, Any]
    warnings: list[str]
    losses: LossTable = field(repr=False)
    details: dict[str, Any] = field(default_factory=dict)
    joint_draws: dict[str, NDArray[np.float64]] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        lines = [str(subset) for subset in self.subsets.values()]
        for pair, quantities in self.differences.items():
            shown = (f"{name} {quantities[name]}" for name in quantities if name.endswith(".a"))
            lines.append(f"{pair}: " + ", ".join(shown))
        tests = self.details.get("joint", {}).get("tests", {})
        lines += [f"joint: {test['sentence']}" for test in tests.values()]
        lines += [f"transfer: {one['sentence']}" for one in self.details.get("transfer", {}).values()]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def fitted_blocks(self) -> BlockLosses | None:
        """Block losses of the weights that were fitted."""
        from jetscale.analysis.tables.selection import of_weights
        from jetscale.analysis.tables.test_blocks import keys_of

        if self.losses.blocks is None:
            return None
        keys: set[Key] = set()
        for frame in self.losses.groups().values():
            rows = of_weights(frame, self.settings["weights"], self.losses)
            keys.update(keys_of(rows))
        return self.losses.blocks.only(keys)

    def to_json(self) -> dict[str, Any]:
        """Content of results.json."""
        from jetscale import __version__

        return {
            "version": __version__,
            "format": FORMAT_VERSION,
            "source": self.losses.source,
            "sample": self.losses.sample,
            "flops_per_param_sample": self.losses.flops_per_param_sample,
            "absent": list(self.losses.absent),
            "settings": self.settings,
            "warnings": self.warnings
            + [f"{s.name}: {text}" for s in self.subsets.values() for text in s.warnings],
            "subsets": {name: subset.to_json() for name, subset in self.subsets.items()},
            "differences": {pair: _quantities(group) for pair, group in self.differences.items()},
        } | self.details

    def save(self, out: Path) -> None:
        """Write results.json, losses.parquet, losses-blocks.parquet and the replicates into `out`.

        Replicates of the subsets are in replicates.parquet, those of the joint fits in joint.parquet.

        checksums.json, written last, holds their checksums (`jetscale.analysis.tables.checksums`).
        """
        import pandas as pd

        from jetscale.analysis.tables import checksums
        from jetscale.analysis.tables.sources import saved
        from jetscale.runs import parquet

        out.mkdir(parents=True, exist_ok=True)
        checksums.remove(out)
        saved.write(out / "losses.parquet", self.losses, self.fitted_blocks())
        frames = [pd.DataFrame(s.draws).assign(subset=s.name) for s in self.subsets.values() if s.draws]
        if frames:
            parquet.write_frame(pd.concat(frames, ignore_index=True), out / "replicates.parquet")
        if self.joint_draws:
            parquet.write_frame(pd.DataFrame(self.joint_draws), out / "joint.parquet")
        else:
            (out / "joint.parquet").unlink(missing_ok=True)
        write_json(out / "results.json", plain(self.to_json()))
        checksums.write(out)


def _quantities(group: dict[str, Quantity]) -> dict[str, Any]:
    return {name: quantity.to_json() for name, quantity in group.items()}
