"""Asking a server again while it is busy or failing."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from jetscale.common.usage import UsageError

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

ATTEMPTS = 5
FIRST_PAUSE = 1.0  # seconds; doubled after every attempt


def patiently(what: str, ask: Callable[[], Answer]) -> Answer:
    """Ask again, ever later, while the server is busy or failing; any other failure is final.

    Raises
    ------
    UsageError
        The failure, with `what` was asked.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except Exception as error:  # W&B's client raises its own, requests' and plain ones
            text = f"{type(error).__name__}: {error}"
            if attempt == ATTEMPTS or not _passing(text):
                raise UsageError(f"{what}: {text}") from error
            log.warning("%s: %s; again in %g s", what, text, pause)
            time.sleep(pause)
            pause *= 2
    raise AssertionError("unreachable")


def _passing(text: str) -> bool:
    """Whether a failure is one that waiting may cure: rate limits, server errors, broken connections."""
    if re.search(r"too many \d+ error responses", text):
        return False  # the client has itself asked for the file again, for 20 minutes
    return bool(
        re.search(r"\b(429|5\d\d)\b|rate limit|timed? ?out|connection|unexpected EOF", text, re.IGNORECASE)
    )
