"""Attention within each jet of a ragged batch, forward and backward.

softmax(q k / sqrt(E)) v within each jet, as `jetscale.model.attention`, for head dimension E = 8, by the
algorithms of Dao et al., arXiv:2205.14135. Most jets have at most 64 tokens: one tile of scores. Longer ones
are computed tile by tile. No program adds to what another has written, so the results do not depend on the
order in which programs run.

Backward, with P = exp(S - log-sum-exp) and delta = rowsum(dO O): dV = P^T dO, dS = P (dO V^T - delta),
dQ = dS K / sqrt(E), dK = dS^T Q / sqrt(E). Where a jet takes several tiles, each of dK and dV on the one hand
and dQ on the other is a pass over the tiles, which makes the scores twice.

What is done once for every score counts, so little is. Powers are of 2, not of e: the factor between them is
part of another product. The tensor cores multiply 16 channels, of which a head has eight, and the others are
put to use: channel E is `FAR` in a query and -`FAR` in a key that does not exist, so that the weight of that
key is zero; and it is 1 in a value, so that channel E of the result is the sum of the weights.

Jets are the first axis of every grid: the others end at 65,535, and a batch may have more jets.

Shapes: as in `buffers`; D width, H heads, L tokens of a jet, Q queries and N keys of a tile.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from jetscale.model.kernels.gpu import HEAD_DIM
from jetscale.model.kernels.gpu.buffers import JetBuffers

PAIRS = 2_048
"""Pairs of a head and a jet up to which twice as many programs share a long jet: fastest on an H200."""
FEW_PAIRS = 512
"""Pairs up to which a program of the backward pass has four warps instead of two, and 64 queries, not 32."""

E = tl.constexpr(HEAD_DIM)
PADDED_E = tl.constexpr(16)  # what the tensor cores multiply at least
SCALE = tl.constexpr(HEAD_DIM**-0.5)
IN_BASE_2 = tl.constexpr(HEAD_DIM**-0.5 / math.log(2))  # exp(S / sqrt(E)) = 2^(S IN_BASE_2)
FAR = tl.constexpr(2.0**15)  # half precision has it too; its square is larger than any score
TILE = tl.constexpr(64)  # tokens of a tile; a jet of at most SMALL has a smaller one
KEYS_AT_ONCE = tl.constexpr(32)  # of class attention


def attend(jets: JetBuffers, n_jets: int, qkv: Tensor, out: Tensor, lse: Tensor) -> None:
    """Attend from every token to all tokens of its jet.

    Parameters
    ----------
    jets, n_jets : the chunk, and jets of a batch B
    qkv : (rows, 3 D) queries, keys and values; any distance between rows
    out : (rows, D), written to in rows below S
    lse : (H, rows) float32, log2 of the sum of exp of each row's scores, written to in rows below S
    """
    n_heads = out.shape[1] // HEAD_DIM
    strides = *_in_heads(qkv, out), lse.stride(0)
    _attend[n_heads * n_jets, _shares(n_heads * n_jets, 1)](
        qkv, out, lse, jets.offsets, jets.first, n_heads, *strides,
        SMALL=16, num_warps=4, num_stages=1,
    )  # fmt: skip


def attend_backward(
    jets: JetBuffers, n_jets: int, qkv: Tensor, out: Tensor, lse: Tensor, d_out: Tensor, d_qkv: Tensor
) -> None:
    """Gradient of `attend`.

    Parameters
    ----------
    jets, n_jets, qkv, out, lse : as `attend` took and left them
    d_out : (rows, D) gradient of `out`
    d_qkv : (rows, 3 D), written to in rows below S
    """
    n_heads = out.shape[1] // HEAD_DIM
    strides = *_in_heads(qkv, out), lse.stride(0), *_in_heads(d_out, d_qkv)
    n_pairs = n_heads * n_jets
    queries, n_warps = (64, 4) if n_pairs <= FEW_PAIRS else (32, 2)
    _attend_backward[n_pairs, _shares(n_pairs, 2)](
        qkv, out, lse, d_out, d_qkv, jets.offsets, jets.first, n_heads, *strides,
        SMALL=32, QUERIES=queries, num_warps=n_warps, num_stages=1, maxnreg=128,
    )  # fmt: skip


def attend_class(jets: JetBuffers, n_jets: int, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor) -> None:
    """Attend from the class token of each jet alone to all tokens of the jet.

    Parameters
    ----------
    jets, n_jets : the chunk, and jets of a batch B
    q : (B, D) queries of the class tokens
    kv : (rows, 2 D) keys and values of all tokens
    out : (B, D), written to
    lse : (B, H) float32, log2 of the sum of exp of the scores, written to
    """
    n_heads = out.shape[1] // HEAD_DIM
    group = _group(n_heads)
    strides = _in_heads(q, kv, out)
    _attend_class[(n_jets, triton.cdiv(n_heads, group))](
        q, kv, out, lse, jets.offsets, jets.first, n_heads, *strides, GROUP=group, num_warps=4
    )


def attend_class_backward(
    jets: JetBuffers,
    n_jets: int,
    q: Tensor,
    kv: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    d_q: Tensor,
    d_kv: Tensor,
) -> None:
    """Gradient of `attend_class`.

    Parameters
    ----------
    jets, n_jets, q, kv, out, lse : as `attend_class` took and left them
    d_out : (B, D) gradient of `out`
    d_q : (B, D), written to
    d_kv : (rows, 2 D), written to in rows below S
    """
    n_heads = out.shape[1] // HEAD_DIM
    group = _group(n_heads)
    strides = _in_heads(q, kv, out, d_out, d_q, d_kv)
    _attend_class_backward[(n_jets, triton.cdiv(n_heads, group))](
        q, kv, out, lse, d_out, d_q, d_kv, jets.offsets, jets.first, n_heads, *strides,
        GROUP=group, num_warps=4,
    )  # fmt: skip


def _shares(n_pairs: int, fewest: int) -> int:
    """Programs that share the tiles of a long jet; for a short jet all but one of them have nothing to do.

    Backward through a jet of two tiles is at least six times the products of a jet of one: where programs are
    few, all would wait for it.

    Parameters
    ----------
    n_pairs : of a head and a jet
    fewest : programs where there are many pairs
    """
    return 2 * fewest if n_pairs <= PAIRS else fewest


def _in_heads(*tensors: Tensor) -> list[int]:
    """Distances between rows in heads: the factor 8 in a kernel tells the compiler how loads are aligned."""
    strides = [tensor.stride(0) for tensor in tensors]
    if any(stride % HEAD_DIM for stride in strides):
        raise ValueError(f"distances between rows must be multiples of {HEAD_DIM}, not {strides}")
    return [stride // HEAD_DIM for stride in strides]


def _group(n_heads: int) -> int:
    """Heads of a program of class attention."""
    return int(min(8, triton.next_power_of_2(n_heads)))


@triton.jit
def jet_rows(OFFSETS, FIRST, jet):
    """First row of a jet of the batch, and its number of tokens."""
    first = tl.load(FIRST)
    begin = tl.load(OFFSETS + first + jet)
    n_tokens = tl.load(OFFSETS + first + jet + 1) - begin + 1
    return begin - tl.load(OFFSETS + first) + jet, n_tokens


@triton.jit
def _attend(QKV, OUT, LSE, OFFSETS, FIRST, n_heads, stride_qkv, stride_out, stride_lse, SMALL: tl.constexpr):
    """A head of a jet; of a long jet every so many-th tile of queries."""
    # neighbouring programs take neighbouring heads of one jet, which lie in one cache line
    jet, head = tl.program_id(0) // n_heads, tl.program_id(0) % n_heads
    share = tl.num_programs(1) - 1 - tl.program_id(1)  # long jets, which all share, begin first
    start, n = jet_rows(OFFSETS, FIRST, jet)
    strides = stride_qkv, stride_out, stride_lse
    if n <= SMALL:
        if share == 0:
            _attend_tile(QKV, OUT, LSE, head, n_heads, start, n, 0, strides, SMALL, True)
    elif n <= TILE:
        if share == 0:
            _attend_tile(QKV, OUT, LSE, head, n_heads, start, n, 0, strides, TILE, True)
    else:
        for low in range(share * TILE, n, tl.num_programs(1) * TILE):
            _attend_tile(QKV, OUT, LSE, head, n_heads, start, n, low, strides, TILE, False)


@triton.jit
def _attend_tile(
    QKV, OUT, LSE, head, n_heads, start, n, low, strides, SIDE: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    """Queries `low` to `low` + SIDE - 1 of a jet against all keys: one tile if it is the WHOLE jet.

    Else the softmax is taken online over tiles.
    """
    stride_qkv, stride_out, stride_lse = strides
    e, i = tl.arange(0, PADDED_E), tl.arange(0, SIDE)
    row, used, column = i + (start + low), i + low < n, (e + head * E)[None, :]
    mask = used[:, None] & (e < E)[None, :]
    q = tl.load(QKV + row[:, None] * (stride_qkv * E) + column, mask=mask, other=0.0)
    q = _with_channel(q, e, FAR)
    if WHOLE:
        k, v = _load_keys(QKV, start + i, i < n, column, e, n_heads * E, stride_qkv)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        highest = tl.max(scores, 1) * IN_BASE_2
        weights = tl.exp2(scores * IN_BASE_2 - highest[:, None])
        mean = tl.dot(weights.to(v.dtype), _with_channel(v, e, 1.0), input_precision="ieee")
    else:
        highest = tl.full([SIDE], float("-inf"), tl.float32)
        mean = tl.zeros([SIDE, PADDED_E], tl.float32)
        for low_key in range(0, n, SIDE):
            key = low_key + i
            k, v = _load_keys(QKV, start + key, key < n, column, e, n_heads * E, stride_qkv)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee")
            higher = tl.maximum(highest, tl.max(scores, 1) * IN_BASE_2)
            weights = tl.exp2(scores * IN_BASE_2 - higher[:, None])
            mean *= tl.exp2(highest - higher)[:, None]
            mean = tl.dot(weights.to(v.dtype), _with_channel(v, e, 1.0), mean, input_precision="ieee")
            highest = higher
    total = tl.sum(tl.where((e == E)[None, :], mean, 0.0), 1)
    mean *= (1 / total)[:, None]
    tl.store(OUT + row[:, None] * (stride_out * E) + column, mean.to(OUT.dtype.element_ty), mask=mask)
    tl.store(LSE + stride_lse * head + row, highest + tl.log2(total), mask=used)


@triton.jit
def _with_channel(x, e, value):
    """A tile (rows, channels) with a value in channel E."""
    return tl.where((e == E)[None, :], value, x).to(x.dtype)


@triton.jit
def _load_keys(QKV, row, exists, column, e, width, stride_qkv):
    """Load k and v of a tile of rows, (N, E); channel E of a key that does not exist is -`FAR`."""
    at_key = QKV + row[:, None] * (stride_qkv * E) + width + column
    mask = exists[:, None] & (e < E)[None, :]
    k = tl.load(at_key, mask=mask, other=0.0)
    v = tl.load(at_key + width, mask=mask, other=0.0)
    return tl.where(exists[:, None] | (e != E)[None, :], k, -FAR).to(k.dtype), v


@triton.jit
def _attend_backward(
    QKV, OUT, LSE, D_OUT, D_QKV, OFFSETS, FIRST, n_heads,
    stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv,
    SMALL: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """A head of a jet; of a long jet every so many-th tile of keys, then of queries."""
    jet, head = tl.program_id(0) // n_heads, tl.program_id(0) % n_heads  # see `_attend`
    share = tl.num_programs(1) - 1 - tl.program_id(1)
    start, n = jet_rows(OFFSETS, FIRST, jet)
    n_tiles = tl.cdiv(n, TILE)
    tensors, strides = (QKV, OUT, LSE, D_OUT), (stride_qkv, stride_out, stride_lse, stride_d_out)
    if n <= SMALL:
        if share == 0:
            _keys_backward(
                tensors, D_QKV, head, n_heads, start, n, 0, strides, stride_d_qkv, SMALL, SMALL, True
            )
    elif n <= TILE:
        if share == 0:
            _keys_backward(
                tensors, D_QKV, head, n_heads, start, n, 0, strides, stride_d_qkv, QUERIES, TILE, True
            )
    else:
        for tile in range(share, 2 * n_tiles, tl.num_programs(1)):
            if tile < n_tiles:
                low = tile * TILE
                _keys_backward(
                    tensors, D_QKV, head, n_heads, start, n, low, strides, stride_d_qkv, QUERIES, TILE, False
                )
            else:
                low = (tile - n_tiles) * TILE
                _queries_backward(
                    tensors, D_QKV, head, n_heads, start, n, low, strides, stride_d_qkv, TILE, QUERIES
                )


@triton.jit
def _load_queries(tensors, strides, head, row, used, column, e):
    """Load q and dO of a tile of rows, (Q, E), their log-sum-exp and delta, (Q,) float32; zero if not used.

    Then all that they add to a gradient is zero, and weights may be anything finite.
    """
    QKV, OUT, LSE, D_OUT = tensors
    stride_qkv, stride_out, stride_lse, stride_d_out = strides
    mask = used[:, None] & (e < E)[None, :]
    q = tl.load(QKV + row[:, None] * (stride_qkv * E) + column, mask=mask, other=0.0)
    out = tl.load(OUT + row[:, None] * (stride_out * E) + column, mask=mask, other=0.0)
    d_out = tl.load(D_OUT + row[:, None] * (stride_d_out * E) + column, mask=mask, other=0.0)
    lse = tl.load(LSE + stride_lse * head + row, mask=used, other=0.0)
    return _with_channel(q, e, FAR), d_out, lse, tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)


@triton.jit
def _keys_backward(
    tensors, D_QKV, head, n_heads, start, n, low, strides, stride_d_qkv,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Gradients dK and dV of a tile of keys over all queries; if it is the WHOLE jet, dQ as well.

    Tiles are (keys, queries): so P and dS are where the products that make dV and dK want them.
    """
    e, key = tl.arange(0, PADDED_E), tl.arange(0, KEYS) + low
    column, real_e = (e + head * E)[None, :], (e < E)[None, :]
    k, v = _load_keys(tensors[0], start + key, key < n, column, e, n_heads * E, strides[0])
    d_k = tl.zeros([KEYS, PADDED_E], tl.float32)
    d_v = tl.zeros([KEYS, PADDED_E], tl.float32)
    for low_query in range(0, n, QUERIES):
        query = low_query + tl.arange(0, QUERIES)
        row, used = start + query, query < n
        q, d_out, lse, delta = _load_queries(tensors, strides, head, row, used, column, e)
        weights = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * IN_BASE_2 - lse[None, :])
        d_scores = weights * (tl.dot(v, tl.trans(d_out), input_precision="ieee") - delta[None, :])
        d_v = tl.dot(weights.to(v.dtype), d_out, d_v, input_precision="ieee")
        d_scores = d_scores.to(q.dtype)
        d_k = tl.dot(d_scores, q, d_k, input_precision="ieee")
        if WHOLE:
            d_q = tl.dot(tl.trans(d_scores), k, input_precision="ieee") * SCALE
            at_query = D_QKV + row[:, None] * (stride_d_qkv * E) + column
            tl.store(at_query, d_q.to(D_QKV.dtype.element_ty), mask=used[:, None] & real_e)
    at_key = D_QKV + (start + key)[:, None] * (stride_d_qkv * E) + n_heads * E + column
    key_mask = (key < n)[:, None] & real_e
    tl.store(at_key, (d_k * SCALE).to(D_QKV.dtype.element_ty), mask=key_mask)
    tl.store(at_key + n_heads * E, d_v.to(D_QKV.dtype.element_ty), mask=key_mask)


@triton.jit
def _queries_backward(
    tensors, D_QKV, head, n_heads, start, n, low, strides, stride_d_qkv,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Gradient dQ of a tile of queries over all keys."""
    e, query = tl.arange(0, PADDED_E), tl.arange(0, QUERIES) + low
    column, row, used = (e + head * E)[None, :], start + query, query < n
    q, d_out, lse, delta = _load_queries(tensors, strides, head, row, used, column, e)
    d_q = tl.zeros([QUERIES, PADDED_E], tl.float32)
    for low_key in range(0, n, KEYS):
        key = low_key + tl.arange(0, KEYS)
        k, v = _load_keys(tensors[0], start + key, key < n, column, e, n_heads * E, strides[0])
        weights = tl.exp2(tl.dot(q, tl.trans(k), input_precision="ieee") * IN_BASE_2 - lse[:, None])
        d_scores = weights * (tl.dot(d_out, tl.trans(v), input_precision="ieee") - delta[:, None])
        d_q = tl.dot(d_scores.to(k.dtype), k, d_q, input_precision="ieee")
    d_q = (d_q * SCALE).to(D_QKV.dtype.element_ty)
    at_query = D_QKV + row[:, None] * (stride_d_qkv * E) + column
    tl.store(at_query, d_q, mask=used[:, None] & (e < E)[None, :])


@triton.jit
def _attend_class(
    Q, KV, OUT, LSE, OFFSETS, FIRST, n_heads, stride_q, stride_kv, stride_out, GROUP: tl.constexpr
):
    """One program a group of heads and jet; tiles are (keys, heads, channels), no matrix products.

    The softmax is taken online (Milakov and Gimelshein, arXiv:1805.02867) over tiles of `KEYS_AT_ONCE` keys.
    """
    jet = tl.program_id(0)
    start, n = jet_rows(OFFSETS, FIRST, jet)
    head, e = tl.program_id(1) * GROUP + tl.arange(0, GROUP), tl.arange(0, E)
    column = head[:, None] * E + e[None, :]
    exists = (head < n_heads)[:, None] & (e < E)[None, :]
    q = tl.load(Q + jet * (stride_q * E) + column, mask=exists, other=0.0).to(tl.float32)
    highest = tl.full([GROUP], float("-inf"), tl.float32)
    total = tl.zeros([GROUP], tl.float32)
    mean = tl.zeros([GROUP, E], tl.float32)
    for lowest in range(0, n, KEYS_AT_ONCE):
        key = lowest + tl.arange(0, KEYS_AT_ONCE)
        at_key = KV + (start + key)[:, None, None] * (stride_kv * E) + column[None, :, :]
        mask = (key < n)[:, None, None] & exists[None, :, :]
        k = tl.load(at_key, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(at_key + n_heads * E, mask=mask, other=0.0).to(tl.float32)
        scores = tl.where((key < n)[:, None], tl.sum(k * q[None, :, :], 2) * IN_BASE_2, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 0))
        weights, fading = tl.exp2(scores - higher[None, :]), tl.exp2(highest - higher)
        total = total * fading + tl.sum(weights, 0)
        mean = mean * fading[:, None] + tl.sum(weights[:, :, None] * v, 0)
        highest = higher
    mean = mean / total[:, None]
    tl.store(OUT + jet * (stride_out * E) + column, mean.to(OUT.dtype.element_ty), mask=exists)
    tl.store(LSE + jet * n_heads + head, highest + tl.log2(total), mask=head < n_heads)


@triton.jit
def _attend_class_backward(
    Q, KV, OUT, LSE, D_OUT, D_Q, D_KV, OFFSETS, FIRST, n_heads,
    stride_q, stride_kv, stride_out, stride_d_out, stride_d_q, stride_d_kv, GROUP: tl.constexpr,
):  # fmt: skip
    jet = tl.program_id(0)
    start, n = jet_rows(OFFSETS, FIRST, jet)
    head, e = tl.program_id(1) * GROUP + tl.arange(0, GROUP), tl.arange(0, E)
    column = head[:, None] * E + e[None, :]
    exists = (head < n_heads)[:, None] & (e < E)[None, :]
    q = tl.load(Q + jet * (stride_q * E) + column, mask=exists, other=0.0).to(tl.float32)
    out = tl.load(OUT + jet * (stride_out * E) + column, mask=exists, other=0.0).to(tl.float32)
    d_out = tl.load(D_OUT + jet * (stride_d_out * E) + column, mask=exists, other=0.0).to(tl.float32)
    lse = tl.load(LSE + jet * n_heads + head, mask=head < n_heads, other=0.0)
    delta = tl.sum(out * d_out, 1)
    d_q = tl.zeros([GROUP, E], tl.float32)
    for lowest in range(0, n, KEYS_AT_ONCE):
        key = lowest + tl.arange(0, KEYS_AT_ONCE)
        row = (start + key)[:, None, None]
        mask = (key < n)[:, None, None] & exists[None, :, :]
        at_key = KV + row * (stride_kv * E) + column[None, :, :]
        k = tl.load(at_key, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(at_key + n_heads * E, mask=mask, other=0.0).to(tl.float32)
        scores = tl.sum(k * q[None, :, :], 2) * IN_BASE_2
        weights = tl.where((key < n)[:, None], tl.exp2(scores - lse[None, :]), 0.0)
        d_weights = tl.sum(v * d_out[None, :, :], 2)
        d_scores = weights * (d_weights - delta[None, :]) * SCALE
        d_q += tl.sum(d_scores[:, :, None] * k, 0)
        at_d_key = D_KV + row * (stride_d_kv * E) + column[None, :, :]
        d_k, d_v = d_scores[:, :, None] * q[None, :, :], weights[:, :, None] * d_out[None, :, :]
        tl.store(at_d_key, d_k.to(D_KV.dtype.element_ty), mask=mask)
        tl.store(at_d_key + n_heads * E, d_v.to(D_KV.dtype.element_ty), mask=mask)
    tl.store(D_Q + jet * (stride_d_q * E) + column, d_q.to(D_Q.dtype.element_ty), mask=exists)
