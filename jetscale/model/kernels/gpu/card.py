"""What a card and its machine must have for the kernels, found out before one of them is compiled.

Where something is missing, Triton would stop a run with a traceback; a run that knows it before trains with
PyTorch's operations.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch

CAPABILITY = 8, 0
"""The oldest compute capability with tensor cores for bfloat16: A100 and later."""

SHARED_MEMORY = {16: 0, 32: 0, 64: 0, 128: 0}
"""Bytes of shared memory that a program of the narrow network needs at most, up to that width.

Of all kernels, compiled for compute capabilities 8.0 and 9.0 (`tests/model/gpu/compiled.py` prints them).
"""
SHARED_MEMORY_WIDE = 0
"""The same above the last of these widths."""


@dataclass(frozen=True)
class Card:
    """A card, and what Triton needs of its machine.

    Attributes
    ----------
    name : for messages
    capability : compute capability, major and minor number
    shared_memory : most bytes of shared memory that a program may have
    compiler : C compiler with which Triton builds what starts a kernel; None if there is none
    headers : whether the header files of Python are there, which that needs
    """

    name: str
    capability: tuple[int, int]
    shared_memory: int
    compiler: str | None
    headers: bool


def card_of(device: torch.device) -> Card:
    """Ask PyTorch for the card, and look for the compiler as Triton does.

    Parameters
    ----------
    device : an NVIDIA GPU of this machine
    """
    found = torch.cuda.get_device_properties(device)
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # as Triton does
    return Card(
        found.name,
        (found.major, found.minor),
        found.shared_memory_per_block_optin,
        c_compiler(),
        Path(sysconfig.get_path("include", scheme), "Python.h").exists(),
    )


def c_compiler() -> str | None:
    """The program that `CC` names, else gcc or clang; None if there is none."""
    if "CC" in os.environ:
        return shutil.which(os.environ["CC"])
    return shutil.which("gcc") or shutil.which("clang")


def lacking(card: Card, dim: int) -> str | None:
    """What a card lacks for a network of width `dim`; None for nothing.

    Parameters
    ----------
    card : the card and its machine
    dim : width D
    """
    if card.capability < CAPABILITY:
        major, minor = card.capability
        return f"{card.name} has compute capability {major}.{minor}, less than 8.0: no bfloat16 products"
    needed = next((size for width, size in SHARED_MEMORY.items() if dim <= width), SHARED_MEMORY_WIDE)
    if card.shared_memory < needed:
        return (
            f"{card.name} has {card.shared_memory:,} bytes of shared memory for a program, and the kernels of "
            f"width {dim} need {needed:,}"
        )
    if card.compiler is None:
        return (
            "Triton finds no C compiler, which it needs to start its kernels: install gcc or clang, or name "
            "one with CC"
        )
    if not card.headers:
        return "Triton finds no Python.h, which it needs to start its kernels: install Python's header files"
    return None
