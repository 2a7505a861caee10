"""What the shipped budgets ask for, in jets."""

from __future__ import annotations

import yaml

from jetscale.common.config_safety import CONF


def budgets_told(phase: str) -> str:
    """Jets that a phase of each budget takes, the smallest first, for an error: ``budget=smoke takes 160``.

    A budget that sets no steps of the phase itself takes those of another, and is left out.
    """
    needs = []
    for path in (CONF / "budget").glob("*.yaml"):
        asked = yaml.safe_load(path.read_text()).get(phase, {})
        if "steps" in asked:
            needs.append((asked["steps"] * asked["batch_size"], path.stem))
    return ", ".join(f"budget={name} takes {jets:,} jets" for jets, name in sorted(needs))
