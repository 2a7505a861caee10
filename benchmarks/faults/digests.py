"""Digests of what readers give, in which every bit counts."""

from __future__ import annotations

import hashlib
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch


def digest(*things: Any) -> str:
    """SHA-256 of numbers, texts, arrays, tensors, tables, and lists, mappings and dataclasses of these."""
    found = hashlib.sha256()
    _feed(found, things)
    return found.hexdigest()


def _feed(found: Any, thing: Any) -> None:
    found.update(f"<{type(thing).__name__}>".encode())
    if isinstance(thing, dict):
        for key, value in thing.items():
            _feed(found, key)
            _feed(found, value)
    elif is_dataclass(thing):
        _feed(found, vars(thing))
    elif isinstance(thing, list | tuple):
        for value in thing:
            _feed(found, value)
    elif isinstance(thing, pd.DataFrame):
        _feed(found, {str(name): column.to_numpy() for name, column in thing.items()})
    elif isinstance(thing, torch.Tensor):
        _feed(found, thing.detach().cpu().numpy())
    elif isinstance(thing, np.ndarray) and thing.dtype != object:
        found.update(f"{thing.dtype} {thing.shape}".encode() + thing.tobytes())
    elif isinstance(thing, np.ndarray):
        _feed(found, thing.tolist())
    elif isinstance(thing, bytes):
        found.update(thing)
    else:
        found.update(repr(thing).encode())
