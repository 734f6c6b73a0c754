import math
from itertools import islice, pairwise
from random import Random

import pytest

from helpers.errors import InputError
from helpers.workload import arrivals
from helpers.workload.hygiene import dispersion, gap_cv, peak_to_mean, window_counts
from helpers.workload.lengths import Constant, Exponential

N = 40_000


def take(times, n=N):
    return list(islice(times, n))


def test_steady_is_evenly_spaced_from_zero():
    assert take(arrivals.steady(4.0), 5) == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_has_its_rate_and_a_coefficient_of_variation_of_one_over_the_root_of_burstiness(burstiness):
    times = take(arrivals.gamma(Random(3), 5.0, burstiness))
    assert len(times) / times[-1] == pytest.approx(5.0, rel=4 / math.sqrt(N * burstiness))
    assert gap_cv(times) == pytest.approx(1 / math.sqrt(burstiness), rel=0.05)


def test_lower_burstiness_is_burstier():
    bursty, even = (gap_cv(take(arrivals.gamma(Random(3), 5.0, b), 5000)) for b in (0.2, 5.0))
    assert bursty > 1.5 > 1.0 > even


def test_poisson_gaps_are_exponential_and_counts_have_dispersion_one():
    times = take(arrivals.poisson(Random(11), 5.0))
    assert dispersion(times, 60.0) == pytest.approx(1.0, abs=0.4)  # 133 windows: deviation sqrt(2/133) = 0.12
    gaps = [b - a for a, b in pairwise(times)]
    assert sum(1 for g in gaps if g > 1 / 5.0) / len(gaps) == pytest.approx(math.exp(-1), abs=0.01)


def test_infinite_burstiness_is_steady_and_the_rescaling_is_exact():
    # One arrival per unit of integrated rate: 1/s for 10 s, nothing for 5 s, then 2/s.
    segments = [(10.0, 1.0), (5.0, 0.0), (3.0, 2.0)]
    times = list(arrivals.modulated(Random(0), segments, math.inf))
    assert times == pytest.approx([*range(1, 11), *(15 + 0.5 * k for k in range(1, 7))])


def test_a_gap_that_spans_segments_is_split_by_rate():
    # Rate 0.5/s for 1 s covers half of the unit gap; the other half takes 0.125 s at 4/s.
    assert next(arrivals.modulated(Random(0), [(1.0, 0.5), (9.0, 4.0)], math.inf)) == pytest.approx(1.125)


def test_step_changes_the_rate_when_told():
    times = list(arrivals.until(arrivals.step(Random(5), [(0, 2.0), (1000, 6.0), (2000, 1.0)]), 4000))
    counts = [sum(1 for t in times if a <= t < b) for a, b in ((0, 1000), (1000, 2000), (2000, 4000))]
    for count, expected in zip(counts, (2000, 6000, 2000), strict=True):
        assert abs(count - expected) < 4 * math.sqrt(expected)


def test_on_off_is_silent_when_off_and_keeps_its_peak_rate_when_on():
    process = arrivals.on_off(Random(1), Constant(10.0), Constant(2.0), Constant(8.0))
    times = list(arrivals.until(process, 10_000))
    assert all(t % 10 <= 2.0 + 1e-9 for t in times)
    assert len(times) == pytest.approx(20_000, rel=0.03)
    trickle = arrivals.on_off(Random(1), Constant(10.0), Constant(2.0), Constant(8.0), off_rate_per_s=1.0)
    assert any(t % 10 > 2.0 + 1e-9 for t in arrivals.until(trickle, 100))


def test_on_off_bursts_last_at_their_rate_where_gamma_of_the_same_cv_clumps():
    bursts = take(arrivals.on_off(Random(2), Constant(20.0), Exponential(10), Exponential(30)))
    gamma = take(arrivals.gamma(Random(2), 5.0, 1 / gap_cv(bursts) ** 2))
    assert gap_cv(gamma) == pytest.approx(gap_cv(bursts), rel=0.15)
    assert max(window_counts(bursts, 1.0)) < 20 + 6 * math.sqrt(20)
    assert max(window_counts(gamma, 1.0)) > 5 * max(window_counts(bursts, 1.0))
    assert peak_to_mean(bursts, 10.0) > 2.5 > peak_to_mean(take(arrivals.poisson(Random(2), 5.0)), 10.0)


def test_drift_keeps_its_mean_rate_and_wanders_with_its_spread():
    times = take(arrivals.drift(Random(4), 20.0, 0.3, 100.0), 200_000)
    # 10,000 s hold about 50 independent stretches of 2 x 100 s: deviation of the mean 0.3/sqrt(50) = 4 %.
    assert len(times) / times[-1] == pytest.approx(20.0, rel=0.15)
    # Counts of 60 s: mean 1,200, relative deviation near 0.3, so dispersion near 1 + 1200 * 0.09 * 0.8.
    assert 40 < dispersion(times, 60.0) < 160
    flat = take(arrivals.drift(Random(4), 20.0, 0.0, 100.0), 60_000)
    assert dispersion(flat, 60.0) < 2.5


def test_until_cuts_before_the_end():
    assert list(arrivals.until(arrivals.steady(1.0), 3)) == [0.0, 1.0, 2.0]


def test_the_same_generator_state_gives_the_same_times_and_another_seed_does_not():
    one, same, other = (take(arrivals.gamma(Random(seed), 3.0, 0.5), 100) for seed in (7, 7, 8))
    assert one == same != other


@pytest.mark.parametrize(
    "make",
    [
        lambda: arrivals.steady(0),
        lambda: arrivals.poisson(Random(0), -1),
        lambda: arrivals.gamma(Random(0), math.inf, 1),
        lambda: arrivals.gamma(Random(0), 1, 0),
        lambda: arrivals.drift(Random(0), 1, -0.1, 10),
        lambda: arrivals.drift(Random(0), 1, 0.1, 0),
        lambda: arrivals.step(Random(0), []),
        lambda: arrivals.step(Random(0), [(5, 1.0)]),
        lambda: arrivals.step(Random(0), [(0, 1.0), (10, 2.0), (10, 3.0)]),
        lambda: next(arrivals.modulated(Random(0), [(1.0, -2.0)])),
        lambda: arrivals.until(arrivals.steady(1), 0),
    ],
)
def test_impossible_processes_are_refused(make):
    with pytest.raises(InputError):
        make()
