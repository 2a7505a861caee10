"""How many jets a batch may have: the kernels count the numbers of a tensor in 32 bits."""

from __future__ import annotations

from jetscale.model.kernels.gpu.head import head_parts
from jetscale.model.kernels.gpu.narrow_memory import input_columns
from jetscale.model.transformer import SetTransformer
from jetscale.training.phase_settings import Phase, PhaseSettings, PretrainSettings

COUNTED = (1 << 31) - 1
"""Most numbers of one tensor."""


def most_jets(model: SetTransformer, max_constituents: int) -> int:
    """Jets of the largest batch whose activations can be counted, were all of them as long as they may be.

    Parameters
    ----------
    model : sizes are taken from it
    max_constituents : of a jet
    """
    columns = input_columns(model.n_features, model.n_pid).width
    numbers_a_token = max(4 * model.dim, columns)  # a feed-forward layer has the widest rows, or the inputs
    return COUNTED // (numbers_a_token * (max_constituents + 1))


def too_large(model: SetTransformer, phase: PhaseSettings, max_constituents: int) -> str | None:
    """Why a step cannot have as many jets as a phase wants; None where it can.

    Parameters
    ----------
    model : sizes are taken from it
    phase : whose batches they are
    max_constituents : of a jet
    """
    name = Phase.PRETRAIN if isinstance(phase, PretrainSettings) else Phase.FINETUNE
    wanted = f"{name}.batch_size={phase.batch_size} is more than the kernels' indices reach with"
    most = most_jets(model, max_constituents)
    if phase.batch_size > most:
        sizes = f"model.dim={model.dim} and data.max_constituents={max_constituents}"
        return f"{wanted} {sizes}: at most {most:,}"
    parts = head_parts(phase.batch_size)["head.weight"]
    if parts * model.n_classes * model.dim > COUNTED:
        return f"{wanted} model.dim={model.dim} and {model.n_classes:,} classes"
    return None
