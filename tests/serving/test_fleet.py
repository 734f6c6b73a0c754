"""A fleet in words: what fits together, and one sentence for what does not."""

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.serving.fleet import Fleet, parse_split


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("1P1D", ("prefill", "decode")),
        ("2P2D", ("prefill", "prefill", "decode", "decode")),
        ("2p1d", ("prefill", "prefill", "decode")),
        (" 1P2D1M ", ("prefill", "decode", "decode", "mixed")),
        ("10P1D0M", ("prefill",) * 10 + ("decode",)),
    ],
)
def test_a_split_names_the_roles(text, roles):
    assert parse_split(text) == roles


@pytest.mark.parametrize(
    "text", ["", "4", "2P", "2D", "0P2D", "2P0D", "2D2P", "-1P2D", "2P2D2", "1.5P2D", "xPyD", "2P 2D"]
)
def test_a_bad_split_is_refused(text):
    with pytest.raises(InputError, match="write prefill and decode workers like 2P2D, at least one of each") as error:
        parse_split(text)
    assert repr(text) in str(error.value) and "\n" not in str(error.value)


def test_the_cluster_has_what_the_words_say():
    spec = Fleet(workers=3, split="1P2D", tp=2, kv_gib=4.0, chunk_tokens=512).cluster(64)
    assert [w.role for w in spec.workers] == ["prefill", "decode", "decode"]
    assert {w.tp for w in spec.workers} == {2}
    assert spec.kv_bytes_per_token == 131_072 and spec.layers == 32
    limits = spec.workers[0].limits
    assert (limits.block_tokens, limits.token_budget) == (64, 512)
    assert limits.kv_blocks == 4 * 2**30 // (64 * 131_072)  # all GPUs of a worker together
    assert Fleet(workers=3).roles == ("mixed",) * 3


def test_workers_that_only_prefill_may_have_a_cost_of_their_own():
    """Policies are told the cost of all; without one of their own they have that too."""
    cost, own = AffineCost(1e-3, 1e-5, 0.0, 1e-4, 1e-7), AffineCost(2e-3, 1e-5, 0.0, 0.0, 0.0)
    fleet = Fleet(workers=4, split="1P2D1M", cost=cost, prefill_cost=own)
    assert [w.cost for w in fleet.cluster(64).workers] == [own, cost, cost, cost]
    assert fleet.predictor().cost is cost
    assert {w.cost for w in Fleet(workers=3, split="1P2D", cost=cost).cluster(64).workers} == {cost}


def test_kv_gib_is_per_worker_whatever_tp_is():
    blocks = {tp: Fleet(tp=tp, kv_gib=8.0).cluster(16).workers[0].limits.kv_blocks for tp in (1, 2, 4, 8)}
    assert set(blocks.values()) == {8 * 2**30 // (16 * 131_072)}
    assert Fleet(tp=16, kv_gib=8.0).cluster(16).workers[0].limits.kv_blocks == blocks[1] // 2  # KV heads held twice
    free = {tp: Fleet(tp=tp).cluster(16).workers[0].limits.kv_blocks for tp in (1, 2)}
    assert free[2] > 2 * free[1]  # a second GPU has room for the weights of the first too
    assert Fleet().describe()["kv_gib_per_worker"] == pytest.approx(56.73, abs=0.01)


def test_the_link_is_the_network_of_all_gpus_of_a_worker():
    one, two = (Fleet(workers=2, split="1P1D", tp=tp).cluster(16).link for tp in (1, 2))
    assert one.bytes_per_s == pytest.approx(400e9 / 8 * 0.75)
    assert two.bytes_per_s == 2 * one.bytes_per_s
    assert (one.latency_s, one.mode) == (1e-3, "layerwise")
    assert Fleet(workers=2, split="1P1D", link_mode="blocking").cluster(16).link.mode == "blocking"
    own = Link(0.0, 1e9, "batched")
    assert Fleet(workers=2, split="1P1D", link=own).cluster(16).link is own


def test_without_a_network_figure_only_a_split_needs_a_link():
    assert Fleet(hardware="rtx4090").cluster(16).link is None
    with pytest.raises(InputError, match=r"has no network figure .* give the fleet a link"):
        Fleet(hardware="rtx4090", workers=2, split="1P1D").cluster(16)
    assert Fleet(hardware="rtx4090", workers=2, split="1P1D", link=Link(0.0, 1e9)).cluster(16).link


def test_the_cost_is_a_prediction_unless_given():
    measured = AffineCost(4e-3, 3e-5, 3e-10, 2e-5, 4e-8)
    assert Fleet().cluster(16).workers[0].cost.kind == Fleet().describe()["cost"] == "predicted"
    assert Fleet(cost=measured).cluster(16).workers[0].cost is measured
    assert Fleet(cost=measured).describe()["cost"] == "fitted"


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"workers": 0}, "a fleet of 0 workers serves nothing; give at least one"),
        ({"workers": -2}, "a fleet of -2 workers serves nothing"),
        ({"tp": 0}, "tp is 0; give 1 or more"),
        ({"chunk_tokens": 0}, "chunk_tokens is 0; give 1 or more"),
        ({"max_batch": -1}, "max_batch is -1; give 1 or more"),
        ({"split": "2P2D", "workers": 3}, "split 2P2D is 4 workers, but 3 were asked for"),
        ({"split": "1P1D"}, "split 1P1D is 2 workers, but 4 were asked for"),
        ({"split": "4x"}, "split '4x'"),
        ({"kv_gib": 0}, "the KV memory is 0 GiB"),
        ({"kv_gib": -1.0}, "the KV memory is -1.0 GiB"),
        ({"kv_gib": NAN}, "the KV memory is nan GiB"),
        ({"kv_gib": INF}, "the KV memory is inf GiB"),
        ({"hop_s": -1e-3}, "hop_s is -0.001"),
        ({"hop_s": NAN}, "hop_s is nan"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(words, sentence):
    with pytest.raises(InputError) as error:
        Fleet(**words)
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"model": "gpt-9"}, "gpt-9"),
        ({"hardware": "h9000"}, "h9000"),
        ({"kv_gib": 0.001}, "hold no block of 512 tokens"),
        ({"model": "llama-3.1-70b"}, "raise tp or take a larger GPU"),
        ({"workers": 2, "split": "1P1D", "link_mode": "eager"}, "transfer mode 'eager'"),
    ],
)
def test_a_fleet_that_cannot_be_built_is_refused(words, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        Fleet(**words).cluster(512)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("blocks", [1, 3, 1000, 40961])
def test_the_limits_of_a_running_engine_are_taken_over_exactly(blocks):
    """A block more or less is seen: the simulator would preempt elsewhere than the engine."""
    limits = Limits(blocks, 64, 512, 32)
    fleet = Fleet("llama-3.1-8b", workers=2).with_limits(limits)
    assert all(worker.limits == limits for worker in fleet.cluster(64).workers)
    assert fleet.cluster(64).workers[0].limits != Limits(blocks + 1, 64, 512, 32)
    assert fleet.roles == Fleet("llama-3.1-8b", workers=2).roles
