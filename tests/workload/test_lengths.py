import math
from random import Random

import pytest

from helpers.errors import InputError
from helpers.workload.lengths import (
    Constant,
    Exponential,
    Lognormal,
    Mixture,
    Pairs,
    Quantiles,
    Tokens,
    nearest_rank,
    parse,
)

N = 20_000


def draws(distribution, n=N, seed=1):
    rng = Random(seed)
    return [distribution.draw(rng) for _ in range(n)]


def mean(values):
    return math.fsum(values) / len(values)


def median(values):
    return sorted(values)[len(values) // 2]


def test_constant_never_varies():
    assert set(draws(Constant(7), 50)) == {7}


def test_exponential_has_its_mean_and_deviation():
    values = draws(Exponential(30.0))
    # Standard error of the mean is mean/sqrt(N): 0.7 %; four of them.
    assert mean(values) == pytest.approx(30.0, rel=0.03)
    assert math.sqrt(mean([(x - 30.0) ** 2 for x in values])) == pytest.approx(30.0, rel=0.05)


def test_lognormal_has_its_median_spread_and_mean():
    d = Lognormal(500.0, 0.8)
    values = draws(d)
    assert median(values) == pytest.approx(500.0, rel=0.03)
    assert mean(values) == pytest.approx(500.0 * math.exp(0.32), rel=0.04)
    assert d.mean == pytest.approx(500.0 * math.exp(0.32))
    inside = sum(1 for x in values if 500 * math.exp(-0.8) < x < 500 * math.exp(0.8)) / N
    assert inside == pytest.approx(0.6827, abs=0.015)


def test_lognormal_fit_recovers_what_was_drawn_and_moves_when_the_sample_does():
    values = draws(Lognormal(200.0, 0.5))
    fitted = Lognormal.fit(values)
    assert fitted.median == pytest.approx(200.0, rel=0.02)
    assert fitted.sigma == pytest.approx(0.5, rel=0.02)
    assert Lognormal.fit([3 * x for x in values]).median == pytest.approx(3 * fitted.median)


def test_mixture_chooses_parts_by_weight():
    values = draws(Mixture(((1.0, Constant(1)), (3.0, Constant(2)))))
    assert values.count(2) / N == pytest.approx(0.75, abs=0.015)


def test_mixture_fit_finds_two_separate_components():
    truth = Mixture(((0.3, Lognormal(20.0, 0.4)), (0.7, Lognormal(5000.0, 0.3))))
    fitted = Mixture.fit(draws(truth, 2000), 2, rounds=40)
    (low_share, low), (_, high) = fitted.parts
    assert low_share == pytest.approx(0.3, abs=0.04)
    assert low.median == pytest.approx(20.0, rel=0.06)
    assert high.median == pytest.approx(5000.0, rel=0.04)
    one = Mixture.fit(draws(truth, 2000), 1, rounds=1).parts[0][1]
    assert one.sigma > 2.0  # one component cannot: it must spread over both


def test_quantiles_return_the_levels_they_were_given():
    d = Quantiles((0.0, 0.5, 0.9, 1.0), (10.0, 100.0, 1000.0, 1000.0))
    ordered = sorted(draws(d))
    assert ordered[0] >= 10 and ordered[-1] <= 1000
    assert nearest_rank(ordered, 0.5) == pytest.approx(100, rel=0.1)
    assert nearest_rank(ordered, 0.25) == pytest.approx(55, rel=0.1)
    assert sum(1 for x in ordered if x == 1000) / N == pytest.approx(0.1, abs=0.01)  # the plateau is a spike


def test_quantiles_of_a_sample_follow_the_sample():
    values = draws(Lognormal(100.0, 1.0))
    redrawn = draws(Quantiles.of(values, 101), seed=9)
    for level in (0.1, 0.5, 0.9):
        assert nearest_rank(sorted(redrawn), level) == pytest.approx(nearest_rank(sorted(values), level), rel=0.07)
    assert nearest_rank(sorted(redrawn), 0.5) != pytest.approx(nearest_rank(sorted(values), 0.9), rel=0.07)


def test_tokens_are_whole_and_clipped_with_the_mass_on_the_bounds():
    values = draws(Tokens(Lognormal(100.0, 1.0), 40, 250))
    assert all(type(x) is int for x in values)
    assert min(values) == 40 and max(values) == 250
    assert values.count(250) / N > 0.1 > values.count(249) / N
    assert max(draws(Tokens(Lognormal(100.0, 1.0), 40))) > 250  # without the bound it is not kept


def test_pairs_carry_the_correlation_of_their_bands():
    bands = ((0.5, Constant(100), Constant(400)), (0.5, Constant(900), Constant(50)))
    pairs = draws(Pairs(bands), 2000)
    assert set(pairs) == {(100, 400), (900, 50)}  # never (100, 50): independent draws would give it
    assert pairs.count((100, 400)) / 2000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("level", "value"), [(0.0, 1), (0.05, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.9, 9), (0.95, 10), (1.0, 10)]
)
def test_nearest_rank_is_the_smallest_value_with_that_share_at_or_below(level, value):
    assert nearest_rank(range(1, 11), level) == value


def test_parse_reads_what_the_command_line_writes():
    assert parse("1000") == Constant(1000)
    assert parse("exponential:20") == Exponential(20)
    assert parse("lognormal:800:0.5") == Lognormal(800, 0.5)


@pytest.mark.parametrize("text", ["", "abc", "lognormal:800", "gauss:1:2", "lognormal:a:b", "constant:1:2"])
def test_parse_refuses_anything_else(text):
    with pytest.raises(InputError, match="write 1000"):
        parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(-1),
        lambda: Constant(math.nan),
        lambda: Exponential(0),
        lambda: Lognormal(0, 1),
        lambda: Lognormal(10, -1),
        lambda: Mixture(()),
        lambda: Mixture(((-1.0, Constant(1)),)),
        lambda: Quantiles((0.0, 0.5), (1, 2)),
        lambda: Quantiles((0.0, 1.0), (2, 1)),
        lambda: Tokens(Constant(1), 5, 4),
        lambda: Lognormal.fit([]),
        lambda: Lognormal.fit([1.0, 0.0]),
        lambda: Mixture.fit([1.0], 2),
    ],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(InputError):
        make()
