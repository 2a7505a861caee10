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

SHARED_MEMORY = 86_528
"""Bytes of shared memory that a program needs at most, of all kernels up to 128 classes.

Compiled with Triton 3.9 for compute capabilities 8.0 and 9.0 at widths 8 to 512; tests/model/gpu/compiled.py
prints it for a width. All cards from 8.0 on have it.
"""
SHARED_MEMORY_MANY_CLASSES = 160_256
"""The same for more classes, where the head keeps more of its weights; cards of a desktop have 101,376."""
MOST_CLASSES = 1_024
"""With more, the head's kernel needs 280,704 bytes at width 128; an H100 has 232,448."""


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
        int(found.shared_memory_per_block_optin),  # type: ignore[attr-defined]  # PyTorch's stub lacks it
        c_compiler(),
        Path(sysconfig.get_path("include", scheme), "Python.h").exists(),
    )


def c_compiler() -> str | None:
    """The program that `CC` names, else gcc or clang; None if there is none."""
    if "CC" in os.environ:
        return shutil.which(os.environ["CC"])
    return shutil.which("gcc") or shutil.which("clang")


def lacking(card: Card, dim: int, n_classes: int) -> str | None:
    """What a card lacks for a network; None for nothing.

    Parameters
    ----------
    card : the card and its machine
    dim : width D
    n_classes : K
    """
    if card.capability < CAPABILITY:
        major, minor = card.capability
        return f"{card.name} has compute capability {major}.{minor}, less than 8.0: no bfloat16 products"
    if n_classes > MOST_CLASSES:
        return f"the network has {n_classes:,} classes, and the head's kernel takes at most {MOST_CLASSES:,}"
    needed = shared_memory(dim, n_classes)
    if card.shared_memory < needed:
        return (
            f"{card.name} has {card.shared_memory:,} bytes of shared memory for a program, and the kernels "
            f"of width {dim} with {n_classes} classes need {needed:,}"
        )
    if card.compiler is None:
        return "Triton needs a C compiler: install gcc or clang, or give the variable CC the path of one"
    if not card.headers:
        return "Triton needs the header files of Python (Python.h), which are not installed"
    return None


def shared_memory(dim: int, n_classes: int) -> int:
    """Bytes of shared memory that a program of a network's kernels needs at most.

    Parameters
    ----------
    dim : width D
    n_classes : K, at most `MOST_CLASSES`
    """
    # Up to this width the head's weights are one piece, as its kernel cuts them; of several, Triton loads
    # more than one ahead.
    one_piece = 64 if n_classes <= 256 else 32 if n_classes <= 512 else 16
    return SHARED_MEMORY_MANY_CLASSES if n_classes > 128 and dim > one_piece else SHARED_MEMORY
