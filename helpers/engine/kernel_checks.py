"""Every kernel against the formulas in float64, on ragged shapes, on any device.

What is checked is what would run there: the Triton kernels on a GPU or in Triton's interpreter, else their
plain-torch twins. Errors are |found - expected| / |expected|, norms over the whole result.
"""

import itertools
import math

import torch
from torch import Tensor

from helpers.engine.attention_checks import Shape, decode_error, prefill_error
from helpers.engine.config import MoEConfig
from helpers.engine.error_bounds import BOUNDS, Check, relative_error
from helpers.engine.kernels import few_rows
from helpers.engine.kernels.backend import INTERPRETED, hopper, runs_triton
from helpers.engine.kernels.decode import block_of, join_counters
from helpers.engine.kernels.grouped import grouped_matmul, grouped_matmul_triton
from helpers.engine.kernels.join import gated_sum
from helpers.engine.kernels.norm import add_rms_norm
from helpers.engine.kernels.routing import choose_experts, group_by_expert
from helpers.engine.kernels.swiglu import swiglu


def small_errors(device, dtype: torch.dtype, tokens: int = 5, hidden: int = 300) -> dict[str, float]:
    """Norm with and without a residual, and SwiGLU, on a width that is no power of two."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device, dtype)

    branch, residual, weight = draw(tokens, hidden), draw(tokens, hidden), 1 + 0.1 * draw(hidden)
    total = branch.double() + residual.double()

    def norm(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()

    errors = {"norm": relative_error(add_rms_norm(branch, None, weight, 1e-5), norm(branch.double()))}
    normed = add_rms_norm(branch, residual, weight, 1e-5)
    errors["add and norm"] = max(relative_error(normed, norm(total)), relative_error(residual, total))
    gate_up = draw(tokens, 2 * hidden)
    gate, up = gate_up.double().chunk(2, -1)
    errors["SwiGLU"] = relative_error(swiglu(gate_up), gate * torch.sigmoid(gate) * up)
    return errors


def expert_errors(device, dtype: torch.dtype) -> dict[str, float]:
    """The grouped matmul with an expert that nobody chose, one with a single row, and odd sizes; the gated sum."""
    generator = torch.Generator().manual_seed(0)
    counts = [0, 1, 40, 16, 0, 7]
    ends = torch.tensor(list(itertools.accumulate(counts)), dtype=torch.int32, device=device)
    rows = torch.randn(sum(counts), 96, generator=generator).to(device, dtype)
    weights = (torch.randn(len(counts), 80, 96, generator=generator) / 10).to(device, dtype)
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
    expected = torch.einsum("rk,rnk->rn", rows.double(), weights[owner].double())
    errors = {"grouped matmul": relative_error(grouped_matmul(rows, weights, ends), expected)}
    if runs_triton(rows):
        tile = (32, 64, 32)
        errors["grouped matmul, own kernel"] = relative_error(
            grouped_matmul_triton(rows, weights, ends, tile), expected
        )
    places = torch.randperm(sum(counts), generator=generator).view(-1, 4).to(device)
    gates = torch.rand(places.shape, generator=generator).to(device)
    expected = (rows.double()[places] * gates.double()[..., None]).sum(1)
    errors["gated sum"] = relative_error(gated_sum(rows, places, gates), expected)
    return errors


def routing_errors(device, dtype: torch.dtype, tokens: int = 37, experts: int = 12, top_k: int = 3) -> dict[str, float]:
    """Gates of both kinds (infinite if another expert is chosen), and the order in which choices are sorted."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(tokens, experts, generator=generator).to(device, dtype)
    bias = (0.1 * torch.randn(experts, generator=generator)).to(device)
    softmax, sigmoid = logits.double().softmax(-1), logits.double().sigmoid()
    cases = {
        "softmax gates": (MoEConfig(experts, top_k, 8), None, softmax, softmax),
        "sigmoid gates with a bias": (
            MoEConfig(experts, top_k, 8, "sigmoid", bias=True, norm_topk=False, scaling=2.5),
            bias,
            2.5 * sigmoid,
            sigmoid + bias.double(),
        ),
    }
    errors = {}
    for name, (moe, bias_given, scores, contest) in cases.items():
        gates, chosen = choose_experts(logits, moe, bias_given)
        best = contest.argsort(-1, descending=True)[:, :top_k]
        expected = scores.gather(-1, best)
        expected = expected / expected.sum(-1, keepdim=True) if moe.norm_topk else expected
        same = torch.equal(chosen.sort(-1).values, best.sort(-1).values)
        errors[name] = relative_error(gates.sort(-1).values, expected.sort(-1).values) if same else math.inf
        lost = choose_experts(torch.full_like(logits, math.nan), moe, bias_given)[1]
        errors[f"{name}, experts in range without numbers"] = 0.0 if lost.min() >= 0 and lost.max() < experts else 1.0
    chosen = torch.randint(experts - 2, (tokens, top_k), generator=generator).to(device)  # two experts get nobody
    rows, places, ends = group_by_expert(chosen, experts)
    order = sorted(range(tokens * top_k), key=lambda i: (int(chosen.flatten()[i]), i))
    expected_ends = list(itertools.accumulate(int((chosen == e).sum()) for e in range(experts)))
    right = rows.tolist() == [i // top_k for i in order] and ends.tolist() == expected_ends
    right = right and places.flatten()[order].tolist() == list(range(tokens * top_k))
    return errors | {"order by expert": 0.0 if right else math.inf}


def few_rows_error(rows: int, shape: tuple[int, int], device, dtype: torch.dtype, fault: bool = False) -> float:
    """Of the product of a few rows with a matrix of this shape; infinite if a second launch differs or the counters
    are left. With `fault` the kernel gets a matrix whose last column is lost."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator).to(device, dtype) for size in ((rows, shape[1]), shape))
    expected, counters = x.double() @ weight.double().T, join_counters(device)
    if fault:
        weight[:, -1] = 0
    found, again = (few_rows.linear_triton(x, weight, counters) for _ in range(2))
    return relative_error(found, expected) if torch.equal(found, again) and not counters.any() else math.inf


SHAPES = (
    Shape(),
    Shape(page=64),
    Shape(heads=4, kv_heads=4, page=64, normed=True),  # MHA
    Shape(heads=6, kv_heads=2, head_dim=32, normed=True),  # a group of three
    Shape(heads=8, kv_heads=1, head_dim=128),
    Shape(heads=4, kv_heads=1, page=64, fp8=True),
)
LENGTHS = [1, 16, 0, 17, 64, 65, 130]  # one token, ends of pages, a padded row
CHUNKS = [(0, 1), (0, 33), (16, 16), (5, 60), (64, 65), (130, 1)]  # (context before, new tokens)


def run(device="cpu", dtype: torch.dtype = torch.float32) -> list[Check]:
    """All checks of this file."""
    bound = BOUNDS[dtype]
    found = [Check(name, error, bound) for name, error in small_errors(device, dtype).items()]
    found += [Check(name, error, bound) for name, error in expert_errors(device, dtype).items()]
    found += [Check(name, error, BOUNDS[torch.float32]) for name, error in routing_errors(device, dtype).items()]
    for shape in SHAPES:
        if shape.fp8 and INTERPRETED:
            continue  # the interpreter loses a carry when it rounds to fp8; a GPU and the plain twins do not
        allowed = BOUNDS[torch.bfloat16] if shape.fp8 else bound  # a stored number may round to its other neighbour
        two = (2, 2, 1) if INTERPRETED else None  # interpreted parts are slow
        error = decode_error(shape, LENGTHS, device, dtype, parts=two)
        found.append(Check(f"decode, {shape}", error, allowed))
        found.append(Check(f"prefill, {shape}", prefill_error(shape, CHUNKS, device, dtype), allowed))
    faults = {
        "decode on another row's page": decode_error(SHAPES[0], [3, 20], device, dtype, "page"),
        "prefill with another row's token": prefill_error(SHAPES[0], [(0, 3), (0, 9)], device, dtype, "row"),
        "prefill without a chunk's tiles": prefill_error(SHAPES[0], [(0, 3), (0, 9)], device, dtype, "tile"),
    }
    found += [Check(f"control: {name}", error, bound, control=True) for name, error in faults.items()]
    if INTERPRETED or (hopper() and dtype == torch.bfloat16):
        whole, split = (64 * few_rows.FEW_BLOCKS, 128), (128, 512)
        for rows, shape in ((1, whole), (1, split), (20, split), (32, split)):
            error = few_rows_error(rows, shape, device, dtype)
            found.append(Check(f"few rows, {rows} of {shape[1]} to {shape[0]}", error, bound))
        error = few_rows_error(3, split, device, dtype, fault=True)
        found.append(Check("control: few rows without a column", error, bound, control=True))
    if runs_triton(torch.empty(0, device=device)):
        for parts in (1, 16):
            error = decode_error(SHAPES[4], LENGTHS, device, dtype, parts=(parts, parts, 1))
            found.append(Check(f"decode in {parts} parts, {SHAPES[4]}", error, bound))
        by_length = (1, 8, 32)  # 33 tokens are a part, 130 five and 200 seven
        error = decode_error(SHAPES[4], [33, 130, 0, 200, 1], device, dtype, parts=by_length)
        found.append(Check("decode, parts by length", error, bound))
        # 225 blocks in 16 parts: fifteen have 15 blocks and the last has none, so that on a GPU too it is there first,
        # long before the others. Parts of one length all arrive before the first of them has read what it joins.
        case = SHAPES[4], [225 * block_of(dtype) + 1], device, dtype
        error, early = (decode_error(*case, fault, parts=(16, 16, 1)) for fault in ("", "early"))
        found.append(Check("decode, a last part without keys", error, bound))
        found.append(Check("control: decode joined by the part that is there first", early, bound, control=True))
    return found
