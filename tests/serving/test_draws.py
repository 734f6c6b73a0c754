"""What a seed changes of a workload, and at which rate it arrives."""

import pytest

from helpers.errors import InputError
from helpers.serving.draws import Draws, drawn, offered_per_s


@pytest.mark.parametrize(
    ("trace", "redrawn"),
    [
        ("generated:conversation", True),
        ("poisson", True),
        ("conversation", False),
        ("chat", False),
        ("some/file.jsonl", False),
    ],
)
def test_only_a_generator_is_redrawn(trace, redrawn):
    assert Draws(trace).redrawn == redrawn


@pytest.mark.parametrize("trace", ["generated:poisson", "conversation"])
def test_seeds_move_what_is_redrawn_and_nothing_else(trace):
    draws = Draws(trace, max_requests=60)
    shas = [drawn(draws, seed).sha256 for seed in (0, 1)]
    assert (shas[0] != shas[1]) == draws.redrawn
    assert draws.open(0)[0].sha256 == shas[0]


def test_a_rate_is_met_exactly_by_every_draw():
    for seed in range(3):
        made = drawn(Draws("generated:poisson", rate_per_s=7.0, max_requests=80), seed)
        assert offered_per_s(made) == pytest.approx(7.0, rel=1e-12)
    assert offered_per_s(drawn(Draws("generated:poisson", max_requests=80), 0)) != pytest.approx(7.0, rel=0.1)


def test_a_rate_scale_multiplies_the_rate():
    plain, fast = (drawn(Draws("conversation", scale, max_requests=80), 0) for scale in (1.0, 2.0))
    assert offered_per_s(fast) == pytest.approx(2 * offered_per_s(plain))
    assert fast.repairs == ("rate x2",) and plain.repairs == ()


def test_a_rate_and_a_scale_contradict_each_other():
    with pytest.raises(InputError, match="give one of them"):
        Draws("conversation", rate_scale=2.0, rate_per_s=3.0)


def test_one_request_has_no_rate():
    with pytest.raises(InputError, match="has no rate"):
        Draws("conversation", rate_per_s=1.0, max_requests=1).open(0)
