"""The experts' answers back in token order, each times its gate: out[t] = sum over k of gate[t, k] * rows[place[t, k]].

Reads each row once and writes [T, hidden]: top_k + 1 times bytes-per-element times [T, hidden].
"""

from torch import Tensor

from helpers.engine.kernels.backend import runs_triton, tl, triton


def gated_sum(rows: Tensor, places: Tensor, gates: Tensor) -> Tensor:
    """rows [T * top_k, hidden]; places [T, top_k] int64, the row of each choice; gates [T, top_k] float32."""
    return (gated_sum_triton if runs_triton(rows) else gated_sum_torch)(rows, places, gates)


def gated_sum_torch(rows: Tensor, places: Tensor, gates: Tensor) -> Tensor:
    return (rows[places].float() * gates[..., None]).sum(dim=1).to(rows.dtype)


@triton.jit
def _gated_sum(rows, places, gates, out, HIDDEN: tl.constexpr, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < HIDDEN
    sums = tl.zeros([BLOCK], tl.float32)
    for choice in range(TOP_K):
        row = tl.load(places + token * TOP_K + choice)
        gate = tl.load(gates + token * TOP_K + choice)
        sums += gate * tl.load(rows + row * HIDDEN + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * HIDDEN + column, sums.to(out.dtype.element_ty), mask=inside)


def gated_sum_triton(rows: Tensor, places: Tensor, gates: Tensor) -> Tensor:
    tokens, top_k = places.shape
    hidden = rows.shape[1]
    out = rows.new_empty(tokens, hidden)
    _gated_sum[(tokens, triton.cdiv(hidden, 1024))](rows, places, gates, out, hidden, top_k, 1024, num_warps=4)
    return out
