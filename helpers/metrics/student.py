"""Student's t distribution with the standard library alone: distribution function and quantile."""

import math

from helpers.errors import InputError


def _beta_fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + …)), the continued fraction under the incomplete beta function.

    Source: NIST Digital Library of Mathematical Functions, 8.17.22, evaluated from the front by
    Lentz's method, with a zero moved to a tiny number. Converges fast for x < (a + 1)/(a + b + 2).
    """
    tiny = 1e-300
    fraction, c, d = 1.0, 1.0, 0.0
    for j in range(1, 2000):
        m = j // 2
        if j % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / ((1.0 + term * d) or tiny)
        c = (1.0 + term / c) or tiny
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return fraction


def beta_share(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for a, b > 0 and x in 0 … 1."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_share(b, a, 1.0 - x)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logs) / (a * _beta_fraction(a, b, x))


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) for Student's t with `df` degrees of freedom. Raises InputError unless df > 0."""
    if not df > 0:
        raise InputError(f"Student's t with {df} degrees of freedom is not defined; use at least two replicates")
    if math.isinf(t):
        return 1.0 if t > 0 else 0.0
    if t * t < df:  # the argument of the beta function nearer to 0 keeps more digits
        centre = 0.5 * beta_share(0.5, df / 2, t * t / (df + t * t))
        return 0.5 + centre if t > 0 else 0.5 - centre
    outer = 0.5 * beta_share(df / 2, 0.5, df / (df + t * t))
    return 1.0 - outer if t > 0 else outer


def t_quantile(p: float, df: float) -> float:
    """The t with P(T <= t) = p, for 0 < p < 1. Raises InputError on another p, or df not above 0.

    Works on the lower tail, where the distribution function keeps its relative accuracy.
    """
    if not 0 < p < 1:
        raise InputError(f"a t quantile at p = {p} is not defined; give a number between 0 and 1")
    if p == 0.5:
        return 0.0
    if p > 0.5:
        return -t_quantile(1.0 - p, df)
    low, high = -1.0, 0.0
    while t_cdf(low, df) > p:
        low, high = 2 * low, low
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if t_cdf(middle, df) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2
