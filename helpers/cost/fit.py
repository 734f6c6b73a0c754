"""Coefficients of `AffineCost` from measured steps: non-negative least squares, intervals, residuals.

Steps are weighted by 1 / seconds, so that what is made small is the relative error: a decode of 2 ms
counts as much as a prefill of 200 ms. A step's time is its `period_s`: what it takes out of a busy worker's
time. Steps that the host took as long to launch as the device to run say what a launch takes, and nothing
of the device: they are fitted apart. numpy is allowed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.cost.calibration import COEFFICIENTS, LAUNCH
from helpers.cost.first_rows import FIRST, FirstRowsCost
from helpers.cost.iteration import AffineCost, CostModel
from helpers.cost.samples import KINDS, StepSample
from helpers.cost.warm import WarmCost, seconds_of
from helpers.errors import InputError

LEAST_OVERHEAD_S = 1e-9  # AffineCost wants a step to take time; a fit may find none
# What a cost has beside the coefficients of `AffineCost`.
FURTHER = {AffineCost: (), FirstRowsCost: ("per_first_row_s",), WarmCost: ("per_recent_token_s",)}
LAUNCH_BOUND = 1.1  # the device took no more than this many times as long as the host's launch


@dataclass(frozen=True, slots=True)
class Residuals:
    """Relative errors |predicted - measured| / measured of `n` held-out steps of one kind."""

    kind: str
    n: int
    p50: float
    p90: float
    bias: float  # the mean signed relative error: above 0 predicts too long


@dataclass(frozen=True)
class Fit:
    """A fitted cost, the interval of each coefficient at `level`, and what it misses on steps that it did not see."""

    cost: AffineCost
    intervals: dict[str, tuple[float, float]]
    residuals: tuple[Residuals, ...]
    steps: int
    held_out: int
    level: float

    def record(self) -> dict:
        """Plain values, for JSON; `helpers.cost.calibration` reads the coefficients back."""
        return {
            "coefficients": {name: getattr(self.cost, name) for name in (*COEFFICIENTS, LAUNCH)},
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
            "level": self.level,
            "steps": self.steps,
            "held_out": self.held_out,
            "residuals": [{name: getattr(r, name) for name in Residuals.__slots__} for r in self.residuals],
        }


def launch_bound(sample: StepSample) -> bool:
    """Whether a step with chunks took as long as it did because its kernels were launched one by one."""
    return bool(sample.chunks) and sample.seconds <= LAUNCH_BOUND * sample.launch_s


def design(samples: Sequence[StepSample], kind: type[AffineCost] = AffineCost) -> np.ndarray:
    """What multiplies each coefficient, [steps, 5]: 1, prefill tokens, query-key pairs, decodes, KV tokens.

    For a `FirstRowsCost` a sixth: the rows of the step, two at most. For a `WarmCost` that is its prefill tokens times
    those that were computed recently.
    """
    rows = []
    for s in samples:
        tokens = sum(n for n, _ in s.chunks)
        pairs = sum(n * (context + n) for n, context in s.chunks)
        further = {FirstRowsCost: (min(tokens + s.decodes, FIRST),), WarmCost: (tokens * s.recent_tokens,)}
        rows.append((1.0, tokens, pairs, s.decodes, s.kv_tokens, *further.get(kind, ())))
    return np.array(rows, float).reshape(-1, len(COEFFICIENTS) + len(FURTHER[kind]))


def non_negative_least_squares(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
    """The x >= 0 [n] that makes |a x - b| least, a [m, n], b [m]: the active-set method of Lawson and Hanson (1974).

    Variables enter one at a time, the one along which the error falls fastest; one that a step would make
    negative stops at 0 and leaves again.
    """
    x, free = np.zeros(a.shape[1]), np.zeros(a.shape[1], bool)
    for _ in range(3 * a.shape[1] + 10):
        gradient = a.T @ (b - a @ x)
        candidates = np.where(free, -np.inf, gradient)
        if free.all() or candidates.max() <= tolerance * max(1.0, np.abs(a.T @ b).max()):
            break
        free[candidates.argmax()] = True
        while True:
            best = np.zeros_like(x)
            best[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            falling = free & (best <= 0)
            if not falling.any():
                x = best
                break
            room = x[falling] / (x[falling] - best[falling])  # how far to go before the first one is 0
            x = x + room.min() * (best - x)
            free &= x > tolerance * np.abs(x).max()
            x[~free] = 0.0
    return x


def coefficients(samples: Sequence[StepSample], kind: type[AffineCost] = AffineCost) -> np.ndarray:
    """The coefficients of a `kind` of cost, [5] or [6], that fit the steps with the least relative error.

    Columns are scaled to be of one size.
    """
    seconds = np.array([s.period_s for s in samples])
    a = design(samples, kind) / seconds[:, None]
    size = np.abs(a).max(axis=0, initial=0.0)
    size[size == 0] = 1.0
    return non_negative_least_squares(a / size, np.ones(len(seconds))) / size


def launch_seconds(samples: Sequence[StepSample]) -> float:
    """The seconds that miss the times of launch-bound steps with the least relative error; 0 without such steps."""
    rates = np.array([1 / s.period_s for s in samples if launch_bound(s)])
    return float(rates.sum() / (rates**2).sum()) if len(rates) else 0.0


def fit(
    samples: Sequence[StepSample],
    blocks: int = 20,
    held_out: int = 5,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    kind: type[AffineCost] = AffineCost,
) -> Fit:
    """Fit on all blocks of time but every `held_out`-th, which gives the residuals.

    Steps near in time share what disturbs them, so intervals come from `draws` redraws of whole blocks, not
    of steps. The cost is of this `kind`, one of `FURTHER`. Raises `InputError` for too few steps, or steps without a
    time.
    """
    if len(samples) < 2 * blocks:
        raise InputError(f"{len(samples)} steps are too few for {blocks} blocks of at least 2; measure more")
    if any(not s.seconds > 0 for s in samples):
        raise InputError("a step without a time cannot be fitted; leave out steps of 0 seconds")
    parts = [list(samples[i * len(samples) // blocks : (i + 1) * len(samples) // blocks]) for i in range(blocks)]
    seen = [part for i, part in enumerate(parts) if i % held_out != held_out - 1]
    unseen = [s for i, part in enumerate(parts) if i % held_out == held_out - 1 for s in part]
    learned = [s for part in seen for s in part]
    parts = [[s for s in part if not launch_bound(s)] for part in seen]
    found = coefficients([s for part in parts for s in part], kind)
    draw = np.random.default_rng(seed)
    redrawn = np.array(
        [
            coefficients([s for i in draw.integers(0, len(parts), len(parts)) for s in parts[i]], kind)
            for _ in range(draws)
        ]
    )
    low, high = np.quantile(redrawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    found[0] = max(found[0], LEAST_OVERHEAD_S)
    names = (*COEFFICIENTS, *FURTHER[kind])
    cost = kind(**dict(zip(names, map(float, found), strict=True)), launch_s=launch_seconds(learned))
    intervals = {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
    return Fit(cost, intervals, residuals(cost, unseen), len(learned), len(unseen), level)


def residuals(cost: CostModel, samples: Sequence[StepSample]) -> tuple[Residuals, ...]:
    """How far the cost is from these steps, for each kind of step among them."""
    found = []
    for kind in KINDS:
        some = [s for s in samples if s.kind == kind]
        if some:
            errors = np.array([seconds_of(cost, s) / s.period_s - 1 for s in some])
            p50, p90 = np.quantile(np.abs(errors), [0.5, 0.9])
            found.append(Residuals(kind, len(some), float(p50), float(p90), float(errors.mean())))
    return tuple(found)
