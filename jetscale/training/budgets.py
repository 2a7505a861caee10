"""What the shipped budgets ask for, in jets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from jetscale.common.config_safety import CONF
from jetscale.jets.errors import JetsRunOut


@contextmanager
def lack_told(use: str) -> Iterator[None]:
    """Have the error of a lack of jets say what they are for, and what each budget takes.

    Parameters
    ----------
    use : ``pretrain``, ``finetune`` or ``eval``, the key that holds the number

    Raises
    ------
    JetsRunOut
        It was raised inside, without these words.
    """
    try:
        yield
    except JetsRunOut as error:
        raise JetsRunOut(f"{use}: {error}; {budgets_told(use)}") from error


def budgets_told(use: str) -> str:
    """Jets that each budget takes, the smallest first, for an error: ``budget=smoke takes 160 jets``.

    A budget that sets no number itself takes that of another, and is left out.

    Parameters
    ----------
    use : ``pretrain``, ``finetune`` or ``eval``
    """
    asked = {
        path.stem: _jets(yaml.safe_load(path.read_text()).get(use, {}))
        for path in (CONF / "budget").glob("*.yaml")
    }
    needs = sorted((jets, name) for name, jets in asked.items() if jets is not None)
    return ", ".join(f"budget={name} takes {jets:,} jets" for jets, name in needs)


def _jets(asked: dict[str, Any]) -> int | None:
    if "steps" in asked:
        return int(asked["steps"]) * int(asked["batch_size"])
    return asked.get("jets")
