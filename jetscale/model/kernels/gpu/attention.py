"""Attention within each jet of a ragged batch, forward and backward.

softmax(q k / sqrt(E)) v within each jet, as `jetscale.model.attention`, for head dimension E = 8, by the
algorithms of Dao et al., arXiv:2205.14135. Most jets have at most 64 tokens: one tile of scores. Longer ones
are computed tile by tile. No program adds to what another has written, so the results do not depend on the
order in which programs run.

Backward, with P = exp(S - log-sum-exp) and delta = rowsum(dO O): dV = P^T dO, dS = P (dO V^T - delta),
dQ = dS K / sqrt(E), dK = dS^T Q / sqrt(E). Where a jet takes several tiles, each of dK and dV on the one hand
and dQ on the other is a pass over the tiles, which makes the scores twice.

Jets are the first axis of every grid: the others end at 65,535, and a batch may have more jets.

Shapes: as in `buffers`; D width, H heads, L tokens of a jet, Q queries and N keys of a tile.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from jetscale.model.kernels.gpu import HEAD_DIM
from jetscale.model.kernels.gpu.buffers import JetBuffers

PAIRS = 2_048
"""Pairs of a head and a jet up to which twice as many programs share a long jet: fastest on an H200."""

E = tl.constexpr(HEAD_DIM)
PADDED_E = tl.constexpr(16)  # what the tensor cores multiply at least
SCALE = tl.constexpr(HEAD_DIM**-0.5)
TILE = tl.constexpr(64)  # tokens of a tile; a jet of at most SMALL has a smaller one
KEYS_AT_ONCE = tl.constexpr(32)  # of class attention


def attend(jets: JetBuffers, n_jets: int, qkv: Tensor, out: Tensor, lse: Tensor) -> None:
    """Attend from every token to all tokens of its jet.

    Parameters
    ----------
    jets, n_jets : the chunk, and jets of a batch B
    qkv : (rows, 3 D) queries, keys and values; any distance between rows
    out : (rows, D), written to in rows below S
    lse : (H, rows) float32, log-sum-exp of each row's scores, written to in rows below S
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
    _attend_backward[n_heads * n_jets, _shares(n_heads * n_jets, 2)](
        qkv, out, lse, d_out, d_qkv, jets.offsets, jets.first, n_heads, *strides,
        SMALL=32, num_warps=2, num_stages=1, maxnreg=128,
    )  # fmt: skip


def attend_class(jets: JetBuffers, n_jets: int, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor) -> None:
    """Attend from the class token of each jet alone to all tokens of the jet.

    Parameters
    ----------
    jets, n_jets : the chunk, and jets of a batch B
    q : (B, D) queries of the class tokens
    kv : (rows, 2 D) keys and values of all tokens
    out : (B, D), written to
    lse : (B, H) float32, written to
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
    if n <= SMALL:
        if share == 0:
            _attend_tile(QKV, OUT, LSE, head, n_heads, start, n, 0, stride_qkv, stride_out, stride_lse, SMALL)
    else:
        for low in range(share * TILE, n, tl.num_programs(1) * TILE):
            _attend_tile(
                QKV, OUT, LSE, head, n_heads, start, n, low, stride_qkv, stride_out, stride_lse, TILE
            )


@triton.jit
def _attend_tile(
    QKV, OUT, LSE, head, n_heads, start, n, low, stride_qkv, stride_out, stride_lse, SIDE: tl.constexpr
):  # fmt: skip
    """Queries `low` to `low` + SIDE - 1 of a jet against all keys, the softmax taken online over tiles."""
    width = n_heads * E
    e, i = tl.arange(0, PADDED_E), tl.arange(0, SIDE)
    column, real_e = (e + head * E)[None, :], (e < E)[None, :]
    row = i + (start + low)
    mask = (i + low < n)[:, None] & real_e
    q = tl.load(QKV + row[:, None] * (stride_qkv * E) + column, mask=mask, other=0.0)
    highest = tl.full([SIDE], float("-inf"), tl.float32)
    total = tl.zeros([SIDE], tl.float32)
    mean = tl.zeros([SIDE, PADDED_E], tl.float32)
    for low_key in range(0, n, SIDE):
        key = low_key + i
        at_key = QKV + (start + key)[:, None] * (stride_qkv * E) + width + column
        key_mask = (key < n)[:, None] & real_e
        k = tl.load(at_key, mask=key_mask, other=0.0)
        v = tl.load(at_key + width, mask=key_mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * SCALE
        scores = tl.where((key < n)[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights, fading = tl.exp(scores - higher[:, None]), tl.exp(highest - higher)
        total = total * fading + tl.sum(weights, 1)
        mean = tl.dot(weights.to(v.dtype), v, mean * fading[:, None], input_precision="ieee")
        highest = higher
    at_out = OUT + row[:, None] * (stride_out * E) + column
    tl.store(at_out, (mean / total[:, None]).to(OUT.dtype.element_ty), mask=mask)
    tl.store(LSE + stride_lse * head + row, highest + tl.log(total), mask=i + low < n)


@triton.jit
def _attend_backward(
    QKV, OUT, LSE, D_OUT, D_QKV, OFFSETS, FIRST, n_heads,
    stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv, SMALL: tl.constexpr,
):  # fmt: skip
    """A head of a jet; of a long jet every so many-th tile of keys, then of queries."""
    jet, head = tl.program_id(0) // n_heads, tl.program_id(0) % n_heads  # see `_attend`
    share = tl.num_programs(1) - 1 - tl.program_id(1)
    start, n = jet_rows(OFFSETS, FIRST, jet)
    n_tiles = tl.cdiv(n, TILE)
    # fmt: off
    if n <= SMALL:
        if share == 0:
            _keys_backward(
                QKV, OUT, LSE, D_OUT, D_QKV, head, n_heads, start, n, 0,
                stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv, SMALL, SMALL, True,
            )
    elif n <= TILE:
        if share == 0:
            _keys_backward(
                QKV, OUT, LSE, D_OUT, D_QKV, head, n_heads, start, n, 0,
                stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv, SMALL, TILE, True,
            )
    else:
        for tile in range(share, 2 * n_tiles, tl.num_programs(1)):
            if tile < n_tiles:
                _keys_backward(
                    QKV, OUT, LSE, D_OUT, D_QKV, head, n_heads, start, n, tile * TILE,
                    stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv, SMALL, TILE, False,
                )
            else:
                _queries_backward(
                    QKV, OUT, LSE, D_OUT, D_QKV, head, n_heads, start, n, (tile - n_tiles) * TILE,
                    stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv, TILE, SMALL,
                )
    # fmt: on


@triton.jit
def _scores_backward(q, k, v, d_out, lse, delta, pair):
    """P and dS / sqrt(E) of a tile, (queries, keys) float32; zero where `pair` is false."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * SCALE
    weights = tl.where(pair, tl.exp(scores - lse[:, None]), 0.0)
    d_weights = tl.dot(d_out, tl.trans(v), input_precision="ieee")
    return weights, weights * (d_weights - delta[:, None]) * SCALE


@triton.jit
def _load_queries(
    QKV, OUT, LSE, D_OUT, head, row, used, column, real_e, stride_qkv, stride_out, stride_lse, stride_d_out
):  # fmt: skip
    """Load q and dO of a tile of rows, (Q, E), their log-sum-exp and delta, (Q,) float32."""
    mask = used[:, None] & real_e
    q = tl.load(QKV + row[:, None] * (stride_qkv * E) + column, mask=mask, other=0.0)
    out = tl.load(OUT + row[:, None] * (stride_out * E) + column, mask=mask, other=0.0)
    d_out = tl.load(D_OUT + row[:, None] * (stride_d_out * E) + column, mask=mask, other=0.0)
    lse = tl.load(LSE + stride_lse * head + row, mask=used, other=0.0)
    return q, d_out, lse, tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)


@triton.jit
def _keys_backward(
    QKV, OUT, LSE, D_OUT, D_QKV, head, n_heads, start, n, low,
    stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Gradients dK and dV of a tile of keys over all queries; if it is the WHOLE jet, dQ as well."""
    width = n_heads * E
    e, key = tl.arange(0, PADDED_E), tl.arange(0, KEYS) + low
    column, real_e = (e + head * E)[None, :], (e < E)[None, :]
    key_row, key_mask = (start + key)[:, None], (key < n)[:, None] & real_e
    k = tl.load(QKV + key_row * (stride_qkv * E) + width + column, mask=key_mask, other=0.0)
    v = tl.load(QKV + key_row * (stride_qkv * E) + 2 * width + column, mask=key_mask, other=0.0)
    d_k = tl.zeros([KEYS, PADDED_E], tl.float32)
    d_v = tl.zeros([KEYS, PADDED_E], tl.float32)
    for low_query in range(0, n, QUERIES):
        query = low_query + tl.arange(0, QUERIES)
        row, used = start + query, query < n
        q, d_out, lse, delta = _load_queries(
            QKV, OUT, LSE, D_OUT, head, row, used, column, real_e,
            stride_qkv, stride_out, stride_lse, stride_d_out,
        )  # fmt: skip
        pair = used[:, None] & (key < n)[None, :]
        weights, d_scores = _scores_backward(q, k, v, d_out, lse, delta, pair)
        d_v = tl.dot(tl.trans(weights.to(v.dtype)), d_out, d_v, input_precision="ieee")
        d_scores = d_scores.to(q.dtype)
        d_k = tl.dot(tl.trans(d_scores), q, d_k, input_precision="ieee")
        if WHOLE:
            d_q = tl.dot(d_scores, k, input_precision="ieee").to(D_QKV.dtype.element_ty)
            tl.store(D_QKV + row[:, None] * (stride_d_qkv * E) + column, d_q, mask=used[:, None] & real_e)
    at_key = D_QKV + key_row * (stride_d_qkv * E) + width + column
    tl.store(at_key, d_k.to(D_QKV.dtype.element_ty), mask=key_mask)
    tl.store(at_key + width, d_v.to(D_QKV.dtype.element_ty), mask=key_mask)


@triton.jit
def _queries_backward(
    QKV, OUT, LSE, D_OUT, D_QKV, head, n_heads, start, n, low,
    stride_qkv, stride_out, stride_lse, stride_d_out, stride_d_qkv,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Gradient dQ of a tile of queries over all keys."""
    width = n_heads * E
    e, query = tl.arange(0, PADDED_E), tl.arange(0, QUERIES) + low
    column, real_e = (e + head * E)[None, :], (e < E)[None, :]
    row, used = start + query, query < n
    q, d_out, lse, delta = _load_queries(
        QKV, OUT, LSE, D_OUT, head, row, used, column, real_e,
        stride_qkv, stride_out, stride_lse, stride_d_out,
    )  # fmt: skip
    d_q = tl.zeros([QUERIES, PADDED_E], tl.float32)
    for low_key in range(0, n, KEYS):
        key = low_key + tl.arange(0, KEYS)
        at_key = QKV + (start + key)[:, None] * (stride_qkv * E) + width + column
        key_mask = (key < n)[:, None] & real_e
        k = tl.load(at_key, mask=key_mask, other=0.0)
        v = tl.load(at_key + width, mask=key_mask, other=0.0)
        pair = used[:, None] & (key < n)[None, :]
        _, d_scores = _scores_backward(q, k, v, d_out, lse, delta, pair)
        d_q = tl.dot(d_scores.to(k.dtype), k, d_q, input_precision="ieee")
    d_q = d_q.to(D_QKV.dtype.element_ty)
    tl.store(D_QKV + row[:, None] * (stride_d_qkv * E) + column, d_q, mask=used[:, None] & real_e)


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
        scores = tl.where((key < n)[:, None], tl.sum(k * q[None, :, :], 2) * SCALE, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 0))
        weights, fading = tl.exp(scores - higher[None, :]), tl.exp(highest - higher)
        total = total * fading + tl.sum(weights, 0)
        mean = mean * fading[:, None] + tl.sum(weights[:, :, None] * v, 0)
        highest = higher
    mean = mean / total[:, None]
    tl.store(OUT + jet * (stride_out * E) + column, mean.to(OUT.dtype.element_ty), mask=exists)
    tl.store(LSE + jet * n_heads + head, highest + tl.log(total), mask=head < n_heads)


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
        scores = tl.sum(k * q[None, :, :], 2) * SCALE
        weights = tl.where((key < n)[:, None], tl.exp(scores - lse[None, :]), 0.0)
        d_weights = tl.sum(v * d_out[None, :, :], 2)
        d_scores = weights * (d_weights - delta[None, :]) * SCALE
        d_q += tl.sum(d_scores[:, :, None] * k, 0)
        at_d_key = D_KV + row * (stride_d_kv * E) + column[None, :, :]
        d_k, d_v = d_scores[:, :, None] * q[None, :, :], weights[:, :, None] * d_out[None, :, :]
        tl.store(at_d_key, d_k.to(D_KV.dtype.element_ty), mask=mask)
        tl.store(at_d_key + n_heads * E, d_v.to(D_KV.dtype.element_ty), mask=mask)
    tl.store(D_Q + jet * (stride_d_q * E) + column, d_q.to(D_Q.dtype.element_ty), mask=exists)
