"""The errors of this room, and how several problems, warnings and damaged files are reported."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jetscale.common.usage import UsageError

MOST_LISTED = 20
"""Problems listed at once."""

log = logging.getLogger(__name__)

_mentioned: set[str] = set()


class JetDataError(UsageError):
    """Jet data that cannot be used as asked; the message names file, entry, value and the way out."""


class LackingColumn(JetDataError):
    """A dataset does not have a column that was asked for; the message names it, and the way out."""


class JetsRunOut(JetDataError):
    """A single pass over the jets that are there is shorter than what was asked for."""


def raise_problems(problems: Sequence[str], heading: str = "files cannot be used") -> None:
    """Nothing without `problems`; otherwise one error that lists them, up to `MOST_LISTED`.

    Parameters
    ----------
    problems : one message each
    heading : what they have in common, after their number

    Raises
    ------
    JetDataError
        There are problems. The message of a single one stands alone.
    """
    if len(problems) == 1:
        raise JetDataError(problems[0])
    if problems:
        lines = [f"{len(problems)} {heading}:", *problems[:MOST_LISTED]]
        if len(problems) > MOST_LISTED:
            lines.append(f"... and {len(problems) - MOST_LISTED} more")
        raise JetDataError("\n  ".join(lines))


def mention_once(key: str, message: str) -> None:
    """Warn of what is no error, once a process for each `key`.

    Parameters
    ----------
    key : identifies the warning
    message : of the warning
    """
    if key not in _mentioned:
        _mentioned.add(key)
        log.warning(message)


@contextmanager
def read_errors_named(path: object) -> Iterator[None]:
    """Any failure of the libraries underneath becomes a `JetDataError` that names the file `path`.

    uproot, pyarrow and PyTables raise a dozen unrelated types on damaged input, so all of `Exception` is
    caught.

    Raises
    ------
    JetDataError
        Reading failed.
    """
    try:
        yield
    except (JetDataError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise JetDataError(f"{path}: cannot be read ({error.strerror})") from error
        reason = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {reason[0] if reason else 'no message'}"
        raise JetDataError(
            f"{path}: cannot be read, damaged or truncated ({detail}); download or simulate it again"
        ) from error
