"""Passwords and keys stay out of what a run writes."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"

# one slash: pathlib makes s3:/ of s3://
_IN_URL = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]+:/{1,2})[^/\s?#'\"]+@")
_IN_QUERY = re.compile(
    r"(?P<name>[?&;][^=&\s]*(?:key|token|secret|passw|sig|credential)[^=&#\s]*=)[^&#\s'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """`text` without passwords: user and password of URLs, keys and tokens in their queries are ``***``."""
    return _IN_QUERY.sub(rf"\g<name>{MASK}", _IN_URL.sub(rf"\g<scheme>{MASK}@", text))


def masked_tree(content: Any) -> Any:
    """`content` of dicts and lists with every string masked."""
    if isinstance(content, dict):
        return {masked_tree(key): masked_tree(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [masked_tree(value) for value in content]
    return masked(content) if isinstance(content, str) else content
