"""The choice of experts by hand, and the sort that groups tokens."""

from dataclasses import replace

import pytest
import torch

from helpers.engine.config import MoEConfig
from helpers.engine.kernels.routing import choose_experts, group_by_expert_torch
from helpers.engine.moe import moe_layer, run_experts
from helpers.engine.weights import ExpertWeights
from helpers.errors import InputError


def logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def test_softmax_gates_by_hand():
    gates, chosen = choose_experts(logits(0.1, 0.4, 0.2, 0.3), MoEConfig(4, 2, 8))
    assert chosen.tolist() == [[1, 3]]
    assert gates[0].tolist() == pytest.approx([4 / 7, 3 / 7])
    gates, _ = choose_experts(logits(0.1, 0.4, 0.2, 0.3), MoEConfig(4, 2, 8, norm_topk=False))
    assert gates[0].tolist() == pytest.approx([0.4, 0.3])


def test_a_bias_counts_for_the_choice_alone():
    # Sigmoid scores 0.5, 0.6, 0.7; with the bias 0.9, 0.6, 0.7 the best two are 0 and 2, with gates 0.5 and 0.7.
    scores = torch.tensor([[0.5, 0.6, 0.7]])
    moe = MoEConfig(3, 2, 8, "sigmoid", bias=True, scaling=2.5)
    gates, chosen = choose_experts(torch.logit(scores), moe, torch.tensor([0.4, 0.0, 0.0]))
    assert chosen.tolist() == [[0, 2]]
    assert gates[0].tolist() == pytest.approx([2.5 * 0.5 / 1.2, 2.5 * 0.7 / 1.2])
    assert choose_experts(torch.logit(scores), moe)[1].tolist() == [[2, 1]]  # control: without the bias


def test_only_the_best_groups_compete():
    # Groups (0.9, 0.1), (0.6, 0.5), (0.2, 0.1): worth 1.0, 1.1, 0.3. With one group the 0.9 loses.
    scores = torch.logit(torch.tensor([[0.9, 0.1, 0.6, 0.5, 0.2, 0.1]]))
    grouped = MoEConfig(6, 2, 8, "sigmoid", groups=3, top_groups=1)
    assert choose_experts(scores, grouped)[1].tolist() == [[2, 3]]
    assert choose_experts(scores, replace(grouped, top_groups=2))[1].tolist() == [[0, 2]]


def test_choices_are_sorted_by_expert_and_found_again():
    tokens, places, ends = group_by_expert_torch(torch.tensor([[2, 0], [2, 1], [0, 2]]), 4)
    # Expert 0: tokens 0 and 2; 1: token 1; 2: tokens 0, 1 and 2; 3: none.
    assert tokens.tolist() == [0, 2, 1, 0, 1, 2]
    assert ends.tolist() == [2, 3, 6, 6]
    assert places.tolist() == [[3, 0], [4, 2], [1, 5]]


def experts(count: int = 4, hidden: int = 6, width: int = 5) -> ExpertWeights:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return ExpertWeights(draw(count, hidden), draw(count, 2 * width, hidden), draw(count, hidden, width))


def test_every_choice_reaches_its_expert():
    weights, hidden = experts(), torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    chosen = torch.tensor([[0, 3], [3, 1], [1, 0], [3, 0], [0, 1], [1, 3], [3, 1]])  # nobody takes expert 2
    gates = torch.rand(7, 2, generator=torch.Generator().manual_seed(2))
    expected = torch.zeros(7, 6)
    for token in range(7):
        for expert, gate in zip(chosen[token].tolist(), gates[token], strict=True):
            a, b = (weights.w13[expert] @ hidden[token]).chunk(2)
            expected[token] += gate * (weights.w2[expert] @ (a * torch.sigmoid(a) * b))
    found = run_experts(hidden, chosen, gates, weights.w13, weights.w2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    swapped = run_experts(hidden, chosen.flip(1), gates, weights.w13, weights.w2)
    assert not torch.allclose(swapped, expected, atol=1e-2)  # control: gates on the wrong expert


def test_a_dispatcher_takes_the_place_of_the_local_experts():
    weights, hidden = experts(), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    moe = MoEConfig(4, 2, 5)
    seen = []

    def dispatcher(hidden, chosen, gates, weights):
        seen.append((chosen.shape, gates.shape))
        return run_experts(hidden, chosen, gates, weights.w13, weights.w2)

    assert torch.equal(moe_layer(hidden, weights, moe, dispatcher), moe_layer(hidden, weights, moe))
    assert seen == [((3, 2), (3, 2))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 9}, "top_k is 9 of 8 experts"),
        ({"gate": "tanh"}, "gate is 'tanh'"),
        ({"groups": 3}, "groups must divide"),
        ({"groups": 8, "top_groups": 1}, "top_k 2 does not fit"),
    ],
)
def test_impossible_experts_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        MoEConfig(**{"experts": 8, "top_k": 2, "intermediate": 8} | change)
