"""Credentials in URLs, taken out of whatever is written or sent."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s?#]*@")
# query parameters that carry a credential: tokens, keys, and the signature of a presigned link
_QUERY = re.compile(
    r"(?P<name>[?&][^=&#\s]*(?:token|secret|password|passwd|signature|credential|api_?key|access_?key|sig)=)"
    r"[^&#\s]+",
    re.IGNORECASE,
)


def mask_urls(text: str) -> str:
    """`text` with user, password and credential parameters of every URL in it replaced by ``***``.

    ``s3://key:secret@host/path?token=abc`` becomes ``s3://***@host/path?token=***``.
    """
    return _QUERY.sub(rf"\g<name>{HIDDEN}", _USER_INFO.sub(rf"\g<scheme>{HIDDEN}@", text))


def masked(content: Any) -> Any:
    """`content` (dicts, lists, tuples, strings, anything else) with `mask_urls` on every string and key."""
    if isinstance(content, str):
        return mask_urls(content)
    if isinstance(content, dict):
        return {masked(key): masked(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(masked(item) for item in content)
    return content
