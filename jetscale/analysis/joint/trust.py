"""Whether joint intervals cover: what simulated studies of the laptop's design say of a misfit as it is seen.

coverage.json is written by ``benchmarks/coverage_joint.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jetscale.analysis.checks.coverage import shown, simulated

NOMINAL = 0.95


def coverage_entry(
    lacks: Mapping[str, Mapping[str, Any] | None], misfits: list[str], scenario: str
) -> dict[str, Any]:
    """Entry ``coverage`` in results.json.

    Parameters
    ----------
    lacks : test for bends by group; None where it could not be made.
    misfits : groups whose losses bend as the law cannot.
    scenario : of the simulation that has such a misfit.

    Returns
    -------
    nominal, covers (whether the law fits, so that intervals are what they claim), misfit (largest rms of the
    bends, relative to the loss), simulated (share of intervals that held the truth, by quantity, where the
    law is wrong by `simulated_misfit`), sentence.
    """
    bends = (float(lack["bend_rms"]) for name in misfits if (lack := lacks[name]))
    worst = max(bends, default=0.0)
    of = simulated("joint").get(scenario, {})
    entry: dict[str, Any] = {
        "nominal": NOMINAL,
        "covers": not misfits,
        "misfit": worst,
        "simulated_misfit": of.get("bend"),
        "simulated_studies": of.get("studies"),
        "simulated": of.get("coverage", {}),
        "sentence": "",
    }
    if misfits:
        entry["sentence"] = (
            f"The losses of {', '.join(misfits)} bend as the law cannot, by up to {100 * worst:.2g}%:"
            " the intervals show the scatter of runs and test jets, not what the law misses."
        )
    if misfits and of:
        entry["sentence"] += (
            f" In simulated studies that bend by {100 * of['bend']:.2g}%, nominal 95% intervals held the"
            f" truth in: {shown(of['coverage'])}."
        )
    return entry
