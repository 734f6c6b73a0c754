"""Percentiles against the definition, weighted ones against the list they stand for."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.metrics.percentiles import ESTIMATORS, Ordered, percentile, tail, tail_q

VALUES = st.lists(st.one_of(st.floats(-1e6, 1e6), st.integers(-3, 3).map(float)), min_size=1, max_size=30)


@given(VALUES, st.integers(1, 1000))
def test_nearest_rank_is_its_definition(values, permille):
    found = percentile(values, permille / 10).value
    enough = [v for v in sorted(values) if sum(x <= v for x in values) * 1000 >= permille * len(values)]
    assert found == enough[0]


def test_decimal_percentiles_are_exact():
    """p99 of 100 values is the 99th, p99.9 of 1,000 the 999th: rounding up must not hand out the maximum."""
    assert percentile(range(1, 101), 99).value == 99
    assert percentile(range(1, 1001), 99.9).value == 999
    assert percentile(range(1, 1001), 99.91).value == 1000


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_linear_agrees_with_the_standard_library(values):
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    assert [percentile(values, 5 * (i + 1), "linear").value for i in range(19)] == pytest.approx(cuts, abs=1e-9)


@given(VALUES, st.data(), st.integers(0, 100), st.sampled_from(ESTIMATORS))
def test_weighted_is_the_list_with_repetitions(values, data, q, estimator):
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(values), max_size=len(values)))
    repeated = [v for v, w in zip(values, weights, strict=True) for _ in range(w)]
    found = percentile(values, q, estimator, weights)
    assert found == percentile(repeated, q, estimator)
    assert found.n == len(repeated)


def test_ignoring_the_weights_is_noticed():
    assert percentile([1.0, 2.0, 3.0], 50, weights=[1, 1, 9]).value == 3.0
    assert percentile([1.0, 2.0, 3.0], 50).value == 2.0


def test_the_estimators_differ_and_are_named():
    nearest, linear = (percentile([0.0, 10.0], 50, e) for e in ESTIMATORS)
    assert (nearest.value, linear.value) == (0.0, 5.0)
    assert (nearest.estimator, linear.estimator, nearest.n) == ("nearest_rank", "linear", 2)


@given(VALUES, st.data())
def test_weighted_mean(values, data):
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(values), max_size=len(values)))
    groups = {w: [v for v, x in zip(values, weights, strict=True) if x == w] for w in set(weights)}
    expected = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    assert Ordered(groups).mean == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_p99_is_printed_from_3000_requests_up():
    assert (tail_q(2999), tail_q(3000)) == (90, 99)
    assert tail([float(i) for i in range(1, 2001)]).value == 1800
    assert tail([float(i) for i in range(1, 4001)]).value == 3960


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: percentile([], 50), "no values"),
        (lambda: percentile([1.0], 101), "0 to 100"),
        (lambda: percentile([1.0], 50, "p2"), "nearest_rank, linear"),
        (lambda: percentile([1.0, float("nan"), 0.5], 50), "not all finite"),
        (lambda: percentile([1.0, 2.0], 50, weights=[1]), "2 values have 1 weights"),
        (lambda: percentile([1.0, 2.0], 50, weights=[1, 0]), "whole number above 0"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
