"""The judge of split runs: what it calls the same, what it catches, and that it looks at all."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.bench.cluster import exactness as exact
from helpers.errors import InputError

ARM = exact.Arm("1P1D", "layerwise")


def row(*values):
    return np.array(values, np.float32).tobytes()


def run(tokens, logits, checked=8, wrong=0, rerouted=0):
    log = SimpleNamespace(counts={"rerouted": rerouted})
    return SimpleNamespace(tokens=tokens, logits=logits, hand_offs=1, checked=checked, wrong=wrong, log=log)


WHOLE = run({0: [5, 6], 1: [7]}, {0: [row(1, 2, -4), row(3, 1, 0)], 1: [row(8, 2, 1)]})


def test_the_error_is_relative_to_the_largest_logit():
    assert exact.relative_error(row(1, 2, -4), row(1, 2.5, -4)) == 0.5 / 4
    assert exact.relative_error(row(1, 2, -4), row(1, 2, -4)) == 0


def test_equal_runs_are_the_same():
    verdict = exact.judge(ARM, WHOLE, WHOLE)
    assert (verdict.tokens_equal, verdict.requests, verdict.logits_compared, verdict.logits_error) == (2, 2, 3, 0)
    assert verdict.same and verdict.as_wanted and not verdict.caught


def test_logits_are_compared_up_to_the_token_at_which_they_part():
    """[5, 6] against [5, 9]: both rows had the same past, so both count; what follows would not."""
    other = run({0: [5, 9], 1: [7]}, {0: [row(1, 2, -4), row(3, 1, 0.5)], 1: [row(8, 2, 1)]})
    verdict = exact.judge(ARM, WHOLE, other)
    assert (verdict.tokens_equal, verdict.logits_compared) == (1, 3)
    assert verdict.logits_error == pytest.approx(0.5 / 3)
    early = run({0: [4, 6], 1: [7]}, {0: [row(1, 2, -4), row(30, 1, 0.5)], 1: [row(8, 2, 1)]})
    assert exact.judge(ARM, WHOLE, early).logits_compared == 2


def test_a_run_that_was_not_looked_at_is_not_the_same():
    """A zero cache against a zero cache, no page checked, no token there: none of them passes."""
    assert not exact.judge(ARM, WHOLE, replace_run(checked=0)).as_wanted
    assert not exact.judge(ARM, WHOLE, run({}, {})).as_wanted
    assert not exact.judge(ARM, WHOLE, replace_run(wrong=1)).as_wanted
    unmoved = exact.judge(replace(ARM, lose="decode"), WHOLE, WHOLE)
    assert not unmoved.as_wanted  # nothing was lost that could be told from this
    assert exact.judge(replace(ARM, lose="decode"), WHOLE, replace_run(rerouted=2)).as_wanted


def replace_run(**how):
    return run(WHOLE.tokens, WHOLE.logits, **how)


def test_a_planted_error_counts_as_caught_by_both_checks_only():
    planted = replace(ARM, tamper="corrupt_page")
    off = {0: [row(1, 2.1, -4), row(3, 1, 0)], 1: [row(8, 2, 1)]}
    assert exact.judge(planted, WHOLE, run(WHOLE.tokens, off, wrong=1)).as_wanted
    assert not exact.judge(planted, WHOLE, run(WHOLE.tokens, off)).as_wanted  # the digests missed it
    assert not exact.judge(planted, WHOLE, replace_run(wrong=1)).as_wanted  # the logits missed it


def test_the_arms_are_every_split_with_every_mover_and_the_controls():
    arms = exact.arms()
    assert len(arms) == 4 * 5 + 5 + 2
    assert len({arm.name for arm in arms}) == len(arms)
    with pytest.raises(InputError, match="pigeon"):
        exact.arms(("1P1D",), ("pigeon",))
    prompts = [r.prompt_tokens for r in exact.workload()]
    assert min(prompts) < 64 and any(not n % 64 for n in prompts) and any(n % 64 == 1 for n in prompts)


def test_real_workers_are_the_same_and_a_zero_cache_is_caught():
    same, zero = exact.check([ARM, replace(ARM, tamper="zero_cache")], requests=4)
    assert same.as_wanted and same.logits_error <= exact.BOUND
    assert zero.as_wanted and zero.pages_wrong == zero.pages_checked == same.pages_checked
