"""Student's t against printed tables and closed forms."""

import math
from statistics import NormalDist

import pytest

from helpers.errors import InputError
from helpers.metrics.student import beta_share, t_cdf, t_quantile

# Three decimals, as printed in statistics textbooks: (one-sided p, degrees of freedom, t).
TABLE = [
    (0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 3, 3.182), (0.975, 5, 2.571), (0.975, 9, 2.262),
    (0.975, 10, 2.228), (0.975, 20, 2.086), (0.975, 30, 2.042), (0.975, 60, 2.000), (0.975, 120, 1.980),
    (0.95, 5, 2.015), (0.95, 10, 1.812), (0.99, 18, 2.552), (0.995, 4, 4.604), (0.995, 10, 3.169), (0.9995, 8, 5.041),
]  # fmt: skip


@pytest.mark.parametrize(("p", "df", "t"), TABLE)
def test_quantiles_of_the_printed_table(p, df, t):
    assert t_quantile(p, df) == pytest.approx(t, abs=5.1e-4)
    assert t_quantile(p, df + 1) < t_quantile(p, df)  # control: the next row of the table is another number


@pytest.mark.parametrize("p", [0.001, 0.2, 0.5, 0.7, 0.9, 0.975, 0.9999])
def test_closed_forms(p):
    one = math.tan(math.pi * (p - 0.5))
    two = (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    assert t_quantile(p, 1) == pytest.approx(one, rel=1e-9, abs=1e-12)
    assert t_quantile(p, 2) == pytest.approx(two, rel=1e-9, abs=1e-12)
    assert t_quantile(p, 1e5) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("t", [-9.0, -1.0, -1e-6, 0.0, 0.3, 2.0, 40.0])
def test_distribution_function(t):
    x = t / math.sqrt(3)
    three = 0.5 + (x / (1 + x * x) + math.atan(x)) / math.pi
    assert t_cdf(t, 3) == pytest.approx(three, rel=1e-10)
    assert t_cdf(t, 7) + t_cdf(-t, 7) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("df", [1, 2.5, 7, 40, 1000])
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.4, 0.95, 0.999])
def test_quantile_inverts_the_distribution_function(p, df):
    assert t_cdf(t_quantile(p, df), df) == pytest.approx(p, rel=1e-9)


def test_incomplete_beta_with_whole_parameters_is_a_binomial_sum():
    x, a, b = 0.3, 3, 5
    n = a + b - 1
    binomial = sum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert beta_share(a, b, x) == pytest.approx(binomial, rel=1e-12)
    assert beta_share(b, a, 1 - x) == pytest.approx(1 - binomial, rel=1e-12)
    assert (beta_share(a, b, 0), beta_share(a, b, 1)) == (0, 1)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="degrees of freedom"):
        t_cdf(1.0, 0)
    with pytest.raises(InputError, match="between 0 and 1"):
        t_quantile(1.0, 5)
