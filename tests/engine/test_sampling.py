"""Tokens drawn by hash: the right distribution, and nothing but the request's seed and the position decides."""

import math

import pytest
import torch

from helpers.engine.sampling import (
    GREEDY,
    NOT_FINITE,
    NUCLEUS,
    TEMPERATURE,
    Sampling,
    exponential_noise,
    keep_likeliest,
    largest,
    mix,
    sample,
)
from helpers.errors import InputError


def rows(logits, seeds, positions, temperature=1.0, top_p=1.0, top_k=0, kind=TEMPERATURE):
    n = len(logits)
    full = lambda value, dtype: torch.full((n,), value, dtype=dtype)  # noqa: E731
    return sample(
        logits, kind, torch.as_tensor(positions), torch.as_tensor(seeds),
        full(temperature, torch.float32), full(top_p, torch.float32), full(top_k, torch.int64),
    )  # fmt: skip


def mix_32(x: int) -> int:
    """The same bijection in Python's whole numbers, cut to 32 bits after each product."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


def test_the_hash_is_that_of_32_bit_arithmetic():
    numbers = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF]
    assert mix(torch.tensor(numbers)).tolist() == [mix_32(x) for x in numbers]
    assert mix(torch.tensor([1])).item() != 1 * 0x7FEB352D  # control: something happens after the first product


def test_the_noise_is_exponential_with_mean_one():
    noise = exponential_noise(torch.arange(50), torch.full((50,), 7), 2000)
    assert noise.mean().item() == pytest.approx(1.0, abs=0.02)  # 100,000 values: standard error 0.003
    assert (noise > 1).float().mean().item() == pytest.approx(math.exp(-1), abs=0.01)
    assert noise.min() > 0


def counts(draws: torch.Tensor, tokens: int) -> list[int]:
    return torch.bincount(draws, minlength=tokens).tolist()


def chi_square(found: list[int], probabilities: list[float]) -> float:
    n = sum(found)
    return sum((f - n * p) ** 2 / (n * p) for f, p in zip(found, probabilities, strict=True))


def test_tokens_are_drawn_with_the_probabilities_of_the_softmax():
    probabilities = [0.4, 0.3, 0.2, 0.1]
    n = 20_000
    logits = torch.tensor(probabilities).log().expand(n, 4)
    found = counts(rows(logits, [3] * n, range(n)), 4)
    assert chi_square(found, probabilities) < 16.3  # chi-square with 3 degrees of freedom: 0.1 % lie above
    assert chi_square(found, [0.3, 0.4, 0.2, 0.1]) > 16.3  # control: two tokens swapped
    over_seeds = counts(rows(logits, range(n), [5] * n), 4)
    assert chi_square(over_seeds, probabilities) < 16.3


def test_temperature_sharpens():
    logits = torch.tensor([0.6, 0.4]).log().expand(4000, 2)
    # at temperature 0.5 the odds 0.6 : 0.4 are squared: 0.36 : 0.16, so 0.692
    share = counts(rows(logits, [1] * 4000, range(4000), temperature=0.5), 2)[0] / 4000
    assert share == pytest.approx(0.36 / 0.52, abs=0.03)
    assert share != pytest.approx(0.6, abs=0.03)  # control: temperature 1


def test_a_row_draws_the_same_alone_and_in_any_batch():
    logits = torch.randn(9, 50, generator=torch.Generator().manual_seed(0))
    seeds, positions = list(range(9)), [10 * i for i in range(9)]
    together = rows(logits, seeds, positions).tolist()
    order = [4, 0, 8, 2]
    assert rows(logits[order], [seeds[i] for i in order], [positions[i] for i in order]).tolist() == [
        together[i] for i in order
    ]
    drawn = lambda which: torch.multinomial(  # noqa: E731 (control: the next number of a generator depends on the row)
        logits[which].softmax(-1), 1, generator=torch.Generator().manual_seed(0)
    ).flatten()
    assert drawn(order).tolist() != drawn(list(range(9)))[order].tolist()


def test_seed_and_position_both_decide():
    logits = torch.zeros(1, 1000)
    first = rows(logits, [1], [1]).item()
    assert first == rows(logits, [1], [1]).item()
    assert first != rows(logits, [2], [1]).item()
    assert first != rows(logits, [1], [2]).item()


def test_only_the_likeliest_are_kept():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = lambda top_p, top_k: (  # noqa: E731
        keep_likeliest(logits, torch.tensor([top_p]), torch.tensor([top_k]))[0].isfinite().tolist()
    )
    assert kept(1.0, 0) == [True] * 4
    assert kept(1.0, 2) == [True, True, False, False]
    assert kept(0.79, 0) == [True, True, False, False]  # 0.5 + 0.3 reach 0.79 together
    assert kept(0.81, 0) == [True, True, True, False]
    assert kept(0.01, 0) == [True, False, False, False]  # one is always left
    n = 500
    drawn = rows(logits.expand(n, 4), [0] * n, range(n), top_k=2, kind=NUCLEUS)
    assert set(drawn.tolist()) == {0, 1}
    assert set(rows(logits.expand(n, 4), [0] * n, range(n), kind=NUCLEUS).tolist()) == {0, 1, 2, 3}  # control


def test_a_row_at_temperature_zero_is_greedy_in_every_kind():
    logits = torch.randn(40, 30, generator=torch.Generator().manual_seed(1))
    best = logits.argmax(-1).tolist()
    assert sample(logits, GREEDY).tolist() == best
    for kind in (TEMPERATURE, NUCLEUS):
        assert rows(logits, [5] * 40, range(40), temperature=0.0, kind=kind).tolist() == best
        assert rows(logits, [5] * 40, range(40), temperature=1.0, kind=kind).tolist() != best  # control


@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_told(damage):
    logits = torch.zeros(3, 8)
    assert (sample(logits, GREEDY) >= 0).all()
    logits[1, 3] = damage
    for kind in (GREEDY, TEMPERATURE, NUCLEUS):
        found = rows(logits, [0] * 3, [0] * 3, kind=kind).tolist()
        assert found[1] == NOT_FINITE
        assert min(found[0], found[2]) >= 0


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"seed": -1}],
)
def test_impossible_sampling_is_refused(wrong):
    with pytest.raises(InputError):
        Sampling(**wrong)


def test_kinds():
    assert Sampling().kind == GREEDY
    assert Sampling(top_p=0.5).kind == GREEDY  # nothing is drawn at temperature 0
    assert Sampling(0.7).kind == TEMPERATURE
    assert Sampling(0.7, top_p=0.9).kind == Sampling(0.7, top_k=5).kind == NUCLEUS


def test_a_long_row_is_searched_in_parts():
    draw = torch.Generator().manual_seed(0)
    for vocab in (320, 6400, 6401):  # short, in 64 parts of 100, not divisible
        logits = torch.randn(7, vocab, generator=draw)
        best, place = largest(logits)
        assert place.tolist() == logits.argmax(-1).tolist()
        assert torch.equal(best, logits.max(-1).values)
    logits[2, 50] = math.nan
    assert largest(torch.cat([logits, logits[:, :63]], 1))[0].isnan().tolist() == [i == 2 for i in range(7)]
    tied = torch.zeros(1, 6400)
    tied[0, [105, 3000]] = 1.0
    assert largest(tied)[1].item() == 105  # the first, as in a short row
