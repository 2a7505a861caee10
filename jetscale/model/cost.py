"""What a network costs: its size N by kind of parameter, and floating-point operations.

Two counts of operations, never mixed: the paper's C = 6 N n_p per jet (`flops_6n`), which defines compute in
every fit, and the operations that a network carries out (`jetscale.model.network.Network.flops`), for
comparison with what the hardware can do.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters by kind.

    Attributes
    ----------
    embedding : input projection and particle-identity embedding
    class_token : the learnable class token of a transformer
    blocks : weights between input and head, those of the norms aside; 10 D^2 for each block of a transformer
    norms : scales and shifts of every norm
    head : classification head, the only part that depends on the task
    """

    embedding: int
    class_token: int
    blocks: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """N of the fits: all parameters."""
        return sum(astuple(self))


KINDS = tuple(field.name for field in fields(ParameterCounts))
"""The kinds of parameters: each network has the same ones, so that a fit can take any definition of N."""


def flops_6n(n_params: int, constituents: float) -> float:
    """Training compute of the paper, C = 6 N n_p summed over jets.

    Parameters
    ----------
    n_params : N
    constituents : constituents of all the jets together; MEAN_CONSTITUENTS times jets for the paper's C

    Returns
    -------
    float, since 6 N D overflows 64-bit integers at scale.
    """
    return 6.0 * n_params * constituents
