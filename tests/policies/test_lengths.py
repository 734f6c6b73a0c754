"""What a policy believes of output lengths."""

from math import exp, log
from statistics import fmean, median, pstdev

import pytest

from helpers.errors import InputError
from helpers.policies.lengths import OutputGuess, deviate
from helpers.workload.request import Request


def request(number, output=200):
    return Request(number, 0.0, 10, output)


def test_without_an_error_the_guess_is_the_truth_or_the_constant():
    assert OutputGuess().of(request(1)) == 200
    assert OutputGuess(50).of(request(1)) == 50
    assert OutputGuess(0, error=2.0).of(request(1)) == 0


def test_an_error_multiplies_by_a_power_of_e():
    z = deviate(7)
    assert OutputGuess(error=0.5).of(request(7)) == pytest.approx(200 * exp(0.5 * z))
    assert OutputGuess(50, 0.5).of(request(7)) == pytest.approx(50 * exp(0.5 * z))
    assert z != 0


def test_the_errors_are_standard_normal_over_the_ids():
    draws = [deviate(number) for number in range(4000)]
    assert abs(fmean(draws)) < 0.06 and abs(pstdev(draws) - 1) < 0.04  # 4 / sqrt(4000) and 4 / sqrt(8000)
    assert 0.28 < sum(abs(z) > 1 for z in draws) / 4000 < 0.35  # 31.7 % lie further out than one deviation
    guesses = [OutputGuess(error=0.5).of(request(number)) for number in range(4000)]
    assert abs(log(median(guesses) / 200)) < 0.04


def test_a_request_has_one_guess_and_others_have_others():
    guess = OutputGuess(error=0.5)
    assert guess.of(request(3)) == OutputGuess(error=0.5).of(request(3, output=200))
    assert len({guess.of(request(number)) for number in range(100)}) == 100


def test_the_deviate_of_an_id_is_the_same_everywhere():
    """blake2b of "0" starts with 8 bytes that anybody can look up: `printf 0 | b2sum -l 64`."""
    from hashlib import blake2b
    from statistics import NormalDist

    share = int(blake2b(b"0", digest_size=8).hexdigest(), 16) / 2**64
    assert NormalDist().cdf(deviate(0)) == pytest.approx(share)


def test_a_guess_is_at_least_one_token():
    assert min(OutputGuess(1, 3.0).of(request(number)) for number in range(50)) == 1.0


@pytest.mark.parametrize(("tokens", "error"), [(-1, 0.0), (None, -0.1), (None, float("nan")), (None, float("inf"))])
def test_what_is_no_guess_is_refused(tokens, error):
    with pytest.raises(InputError, match="guess"):
        OutputGuess(tokens, error)
