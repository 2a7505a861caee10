"""Warnings of a fit, grouped by what they do to the answers and ranked: what can change them comes first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_CHANGES = (
    r"effect: |differ in|two units|several evaluation|starts reached|no smooth function|so flat a minimum"
    r"|held the truth|not of the C given|for the C given|intervals? (do|does) not cover|stops? covering|unit"
)
_NO_VALUE = r"no exponent|no gain of|no floor|not determined|approach \d: |no (joint|transfer)"
GROUPS: tuple[tuple[str, str], ...] = (
    ("Can change the answers", _CHANGES),
    ("No value, and why", _NO_VALUE),
    ("Losses far from the fit", r"robust standard deviations|far from the other"),
    ("What was read, and how", r""),
)
"""Title and pattern of every group; a warning belongs to the first whose pattern it holds."""


@dataclass(frozen=True)
class Group:
    """Warnings of one kind.

    Attributes
    ----------
    title : what they do.
    texts : the warnings, every one whole.
    """

    title: str
    texts: list[str]

    @property
    def serious(self) -> bool:
        """Whether they can change an answer: these are in sight, the others are folded."""
        return self.title == GROUPS[0][0]


def all_of(results: dict[str, Any]) -> list[str]:
    """Every warning of results.json: of table, subsets, joint fit and laws of transfer."""
    found = list(results["warnings"])
    for key in ("joint", "transfer_laws"):
        more = (results.get(key) or {}).get("warnings", [])
        found += [text for text in more if not any(text in known for known in found)]
    return found


def grouped(warnings: list[str]) -> list[Group]:
    """Every warning in its group, the groups ranked, none empty; texts of one kind stand together."""
    found: dict[str, list[str]] = {title: [] for title, _ in GROUPS}
    for text in warnings:
        title = next(title for title, pattern in GROUPS if re.search(pattern, text))
        found[title].append(text)
    return [Group(title, sorted(texts, key=_kind)) for title, texts in found.items() if texts]


def _kind(text: str) -> str:
    """The warning without its subset and numbers: warnings that say the same of several subsets."""
    return re.sub(r"[\d.e+-]+", "", text.partition(": ")[2] or text)
