import math
from collections import deque
from dataclasses import replace
from itertools import islice, pairwise

import pytest

from helpers.errors import InputError
from helpers.workload.generate import GENERATORS, HOUR_S, generate, open_workload, settings, stream
from helpers.workload.hygiene import describe, gap_cv
from helpers.workload.prefixes import Sessions
from helpers.workload.reuse import describe_reuse
from helpers.workload.traces import save

NAMES = sorted(GENERATORS)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_workload_and_another_seed_another(name):
    one, same, other = (generate(name, requests=300, seed=seed) for seed in (1, 1, 2))
    assert one.sha256 == same.sha256
    assert len(one) == 300
    if name == "steady":
        assert one.sha256 == other.sha256  # nothing is random in it
    else:
        assert one.sha256 != other.sha256


@pytest.mark.parametrize("name", NAMES)
def test_requests_are_sound(name):
    requests = generate(name, requests=500, seed=4).requests
    assert [r.id for r in requests] == list(range(500))
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(requests))
    assert all(r.prompt_tokens >= 1 and r.output_tokens >= 1 and r.arrival_s >= 0 for r in requests)
    with_blocks = [r for r in requests if r.prefix_blocks]
    assert len(with_blocks) in (0, 500)
    assert all(len(r.prefix_blocks) == -(-r.prompt_tokens // 512) for r in with_blocks)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_rate_is_the_one_asked_for(name):
    knobs = {"at_s": 1e9} if name == "step" else {}
    wandering = name in ("code", "chat", "bursts", "conversation")
    # Bursts: on periods vary by sqrt(2 T (ab)^2 / (a+b)^3) / T = 2.7 % for a, b = 10, 30 s and T = 60,000 s.
    duration, tolerance = (60_000.0, 0.09) if wandering else (20_000.0, 0.03)
    rate = 2.0
    last = deque(enumerate(stream(name, rate_per_s=rate, duration_s=duration, seed=6, **knobs), 1), maxlen=1)
    count, _ = last[0]
    assert count == pytest.approx(rate * duration, rel=tolerance)


def test_a_stream_is_lazy_and_equals_the_workload():
    endless = stream("conversation", rate_per_s=50.0, requests=10**12, seed=2, warmup_s=0.0)
    first = list(islice(endless, 200))
    assert tuple(first) == generate("conversation", rate_per_s=50.0, requests=200, seed=2, warmup_s=0.0).requests
    assert isinstance(next(endless).id, int)


def test_streaming_keeps_only_the_sessions_under_way(monkeypatch):
    waiting = []
    original = Sessions._next_turn

    def spy(self, turn, parent):
        follow = original(self, turn, parent)
        waiting.append(1 if follow else -1)
        return follow

    monkeypatch.setattr(Sessions, "_next_turn", spy)
    deque(stream("agents", requests=20_000, seed=1), maxlen=0)
    ended = waiting.count(-1)
    assert ended > 1000  # sessions end all along; only the rest is remembered


def test_requests_or_duration_or_an_hour():
    assert len(generate("steady", rate_per_s=2.0, requests=7)) == 7
    assert len(generate("steady", rate_per_s=2.0, duration_s=10.0)) == 20
    assert len(generate("steady", rate_per_s=2.0, duration_s=10.0, requests=7)) == 7
    assert len(generate("steady", rate_per_s=0.5)) == HOUR_S / 2


def test_steady_is_constant_in_everything():
    workload = generate("steady", requests=100, rate_per_s=10.0, prompt_tokens="1000", output_tokens="100")
    assert {(r.prompt_tokens, r.output_tokens, r.prefix_blocks) for r in workload} == {(1000, 100, ())}
    assert {round(b.arrival_s - a.arrival_s, 9) for a, b in pairwise(workload.requests)} == {0.1}


def test_plain_blocks_share_what_they_are_told():
    unique = describe_reuse(generate("steady", requests=50, blocks=True))
    assert (unique.hit_blocks, unique.unique_blocks) == (0.0, 100)
    shared = generate("steady", requests=50, shared_tokens=600)
    assert len({r.prefix_blocks[0] for r in shared}) == 1
    assert len({r.prefix_blocks[1] for r in shared}) == 50  # the text ends inside block 1
    short = generate("steady", requests=5, shared_tokens=600, prompt_tokens="10")
    assert {r.prompt_tokens for r in short} == {601}


def test_block_size_is_honoured():
    workload = generate("documents", requests=50, block_tokens=16)
    assert workload.block_tokens == 16
    assert all(len(r.prefix_blocks) == -(-r.prompt_tokens // 16) for r in workload)


def test_exact_rate_rescales_arrivals_only():
    loose = generate("code", requests=2000, seed=1)
    exact = generate("code", requests=2000, seed=1, exact_rate=True)
    assert exact.requests[-1].arrival_s == pytest.approx(2000 / 2.57)
    assert loose.requests[-1].arrival_s != pytest.approx(2000 / 2.57, rel=0.01)
    assert gap_cv([r.arrival_s for r in exact]) == pytest.approx(gap_cv([r.arrival_s for r in loose]))
    assert [r.prompt_tokens for r in exact] == [r.prompt_tokens for r in loose]
    before, after = (generate("agents", requests=200, seed=1, exact_rate=exact) for exact in (False, True))
    assert [replace(r, arrival_s=0.0) for r in before] == [replace(r, arrival_s=0.0) for r in after]
    assert before.requests != after.requests and any(r.parent is not None for r in after)


def test_burstiness_and_step_and_bursts_do_what_their_knobs_say():
    bursty = generate("poisson", requests=20_000, seed=1, burstiness=0.25)
    assert describe(bursty).gap_cv == pytest.approx(2.0, rel=0.06)
    bursty = generate("documents", requests=20_000, seed=1, burstiness=0.25)
    assert describe(bursty).gap_cv == pytest.approx(2.0, rel=0.06)
    firsts = [
        [r.arrival_s for r in generate("agents", requests=20_000, seed=1, burstiness=b) if r.parent is None]
        for b in (1.0, 0.25)
    ]
    assert [gap_cv(times) for times in firsts] == pytest.approx([1.0, 2.0], rel=0.08)
    stepped = generate("step", rate_per_s=5.0, duration_s=1200, seed=1, at_s=400, back_s=800, factor=3.0)
    counts = [sum(1 for r in stepped if a <= r.arrival_s < a + 400) for a in (0, 400, 800)]
    for count, expected in zip(counts, (2000, 6000, 2000), strict=True):
        assert abs(count - expected) < 4 * math.sqrt(expected)
    on_off = generate("bursts", requests=8000, seed=1, on_s=5.0, off_s=45.0)
    assert describe(on_off).peak_to_mean_10s > 5


def test_agents_are_causal_loops_with_shared_instructions():
    workload = generate("agents", requests=4000, seed=1)
    follow = [r for r in workload if r.parent is not None]
    assert len(follow) / 4000 == pytest.approx(1 - 1 / 12, abs=0.03)
    by_id = {r.id: r for r in workload}
    assert all(by_id[r.parent].session == r.session for r in follow)
    reuse = describe_reuse(workload)
    assert reuse.common_blocks >= 1500 // 512
    assert reuse.hit_blocks > 0.6
    assert not any(r.parent is not None for r in generate("agents", requests=500, causal=False))


def test_documents_form_a_tree_of_shared_prefixes():
    few = describe_reuse(generate("documents", requests=2000, seed=1, tenants=2, documents=2))
    many = describe_reuse(generate("documents", requests=2000, seed=1, tenants=20, documents=200))
    assert few.hit_blocks > 0.9 > many.hit_blocks
    assert few.common_blocks >= 1


def test_knobs_may_be_text_and_are_never_rounded_or_ignored():
    assert settings("step", {"at_s": "400", "factor": "1.5"}).at_s == 400.0
    assert settings("conversation", {"causal": "true"}).causal is True
    assert settings("agents", {"kinds": "3"}).kinds == 3
    for name, knobs in (
        ("poisson", {"burstyness": 1}),
        ("chat", {"burstiness": 1}),
        ("agents", {"kinds": "3.5"}),
        ("agents", {"kinds": 3.5}),
        ("agents", {"kinds": True}),
        ("conversation", {"causal": "maybe"}),
        ("step", {"factor": "nan"}),
        ("step", {"factor": "two"}),
    ):
        with pytest.raises(InputError, match="knob"):
            settings(name, knobs)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("nothing", {}),
        ("poisson", {"rate_per_s": 0}),
        ("poisson", {"rate_per_s": -2}),
        ("poisson", {"rate_per_s": math.nan}),
        ("poisson", {"requests": 0}),
        ("poisson", {"requests": 2.5}),
        ("poisson", {"duration_s": math.inf}),
        ("poisson", {"rate_per_s": 1e-9, "duration_s": 1}),
        ("poisson", {"burstiness": -1.0, "requests": 5}),
        ("poisson", {"prompt_tokens": "many", "requests": 5}),
        ("steady", {"shared_tokens": -5, "requests": 5}),
        ("steady", {"block_tokens": 0, "blocks": True, "requests": 5}),
        ("bursts", {"on_s": 0.0, "requests": 5}),
        ("step", {"back_s": 10.0, "requests": 5}),
        ("agents", {"mean_calls": 0.5, "requests": 5}),
        ("agents", {"warmup_s": -1.0, "requests": 5}),
        ("documents", {"tenants": 0, "requests": 5}),
    ],
)
def test_impossible_requests_are_refused(name, arguments):
    with pytest.raises(InputError):
        generate(name, **arguments)


def test_open_workload_knows_shipped_traces_generators_and_files(tmp_path):
    shipped, report = open_workload("code", seed=5)
    assert (report.format, len(shipped)) == ("azure", report.loaded)
    made, report = open_workload("generated:code", requests=50, seed=5)
    assert report.format == "generated:code" and len(made) == 50
    assert made.sha256 == generate("code", requests=50, seed=5).sha256
    bare, _ = open_workload("poisson", requests=50, seed=5, knobs={"burstiness": "0.5"})
    assert bare.sha256 == generate("poisson", requests=50, seed=5, burstiness=0.5).sha256
    path = save(bare, tmp_path / "own.jsonl")
    assert open_workload(path)[0].sha256 == bare.sha256
    assert len(open_workload(str(path), max_requests=7)[0]) == 7
    assert len(open_workload("poisson", requests=50, max_requests=7)[0]) == 7


def test_open_workload_holds_generated_prompts_to_the_context():
    arguments = {"requests": 400, "seed": 1, "knobs": {"prompt_tokens": "lognormal:1000:1"}}
    whole, _ = open_workload("poisson", **arguments)
    assert max(r.prompt_tokens + r.output_tokens for r in whole) > 3000
    with pytest.raises(InputError, match="the context is 3000"):
        open_workload("poisson", max_context=3000, **arguments)
    kept, report = open_workload("poisson", max_context=3000, skip_bad=True, **arguments)
    assert max(r.prompt_tokens + r.output_tokens for r in kept) <= 3000
    assert report.rows == 400 and report.loaded == len(kept) == 400 - dict(report.skipped).popitem()[1]
    causal, _ = open_workload("agents", requests=400, max_context=8000, skip_bad=True)
    ids = {r.id for r in causal}
    assert all(r.parent is None or r.parent in ids for r in causal)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("nowhere", {}, "no file and no workload"),
        ("nowhere.csv", {}, "there is no such trace file"),
        ("generated:nothing", {}, "there is no generator"),
        ("code", {"rate_per_s": 2.0}, "rate_per_s belong to generators"),
        ("code", {"knobs": {"burstiness": 1}}, "burstiness belong to generators"),
    ],
)
def test_open_workload_refuses_what_it_cannot_open(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        open_workload(name, **arguments)
