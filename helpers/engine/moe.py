"""Mixture of experts: the choice of experts, and one sort that turns it into two grouped matmuls.

Nothing here waits for the host: sizes that depend on the routing stay on the device.
"""

from torch import Tensor
from torch.nn.functional import linear

from helpers.engine.config import MoEConfig
from helpers.engine.kernels.grouped import grouped_matmul
from helpers.engine.kernels.join import gated_sum
from helpers.engine.kernels.routing import choose_experts, group_by_expert
from helpers.engine.kernels.swiglu import swiglu
from helpers.engine.weights import ExpertWeights


def run_experts(hidden: Tensor, chosen: Tensor, gates: Tensor, w13: Tensor, w2: Tensor) -> Tensor:
    """The gated sum of the chosen experts: hidden [T, hidden], chosen and gates [T, top_k] to [T, hidden].

    Choices are sorted by expert, so that each expert has its rows in one piece.
    """
    tokens, places, ends = group_by_expert(chosen, len(w13))
    rows = grouped_matmul(hidden[tokens], w13, ends)
    rows = grouped_matmul(swiglu(rows), w2, ends)
    return gated_sum(rows, places, gates)


def moe_layer(hidden: Tensor, weights: ExpertWeights, moe: MoEConfig, dispatcher=None) -> Tensor:
    """[T, hidden] to [T, hidden].

    `dispatcher(hidden, chosen, gates, weights)` takes the place of `run_experts` where the experts of a
    layer live on several workers.
    """
    gates, chosen = choose_experts(linear(hidden, weights.router), moe, weights.bias)
    if dispatcher is None:
        out = run_experts(hidden, chosen, gates, weights.w13, weights.w2)
    else:
        out = dispatcher(hidden, chosen, gates, weights)
    if weights.shared_w13 is not None:
        shared = swiglu(linear(hidden, weights.shared_w13))
        out = out + linear(shared, weights.shared_w2)
    return out
