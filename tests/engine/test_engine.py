"""The loops: the same tokens however a request is run, what comes out when, and the record of the steps."""

import pytest

from helpers.engine import loop_checks
from helpers.engine.generation import request_of
from helpers.engine.loop_checks import BLOCK, ROOMY, TIGHT, damage, different, requests, serve
from helpers.engine.sampling import Sampling
from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.metrics.timeline import EventLog, StepLog, token_times
from helpers.scheduling.limits import Limits
from helpers.simulator.record import timeline_of
from helpers.workload.request import Request


@pytest.fixture(scope="module")
def checks():
    return loop_checks.run()


def test_every_way_of_running_gives_the_same_tokens(checks):
    assert [c.name for c in checks if not c.ok] == []
    assert sum(c.control for c in checks) == 2  # stale graphs, which must show
    assert all(c.tokens > 100 for c in checks if not c.control)


def test_a_planted_fault_is_noticed_by_tokens_or_by_the_engine(make_engine):
    asked = requests(2)
    expected = serve(make_engine(), asked)
    assert damage(make_engine(), asked, expected) == 0.0  # the control: no fault
    broken = make_engine()
    norm = broken.decoder.weights.norm  # of a decoder that other tests use too
    whole = norm.clone()
    norm.fill_(float("nan"))
    try:
        assert damage(broken, asked, expected) == 1.0
    finally:
        norm.copy_(whole)


def test_the_ways_are_what_they_are_called(make_engine):
    """Control of the checks: requests are preempted in the tight pool, and prefixes are hit."""
    tight = make_engine(TIGHT)
    served = [tight.submit(r) for r in requests()]
    assert list(tight.stream())
    assert sum(g.preemptions for g in served) >= 3
    assert {s.kind for s in tight.samples} == {"decode", "mixed", "prefill"}  # chunks beside decodes
    assert any(context for s in tight.samples for _, context in s.chunks)  # and second chunks
    warm = make_engine(overlap=True)
    shared = requests(4, shared_blocks=3)
    served = [warm.submit(r) for r in shared]
    list(warm.stream())
    again = [warm.submit(r) for r in shared]
    list(warm.stream())
    assert [g.cached_tokens for g in again] >= [3 * BLOCK] * 4
    assert different([g.out for g in again], [g.out for g in served]) == 0.0


def test_other_prompts_give_other_tokens(make_engine):
    """Control of `different`: it is not zero for everything."""
    asked = requests()
    moved = [Request(r.id + 100, 0.0, r.prompt_tokens, r.output_tokens) for r in asked]
    assert different(serve(make_engine(), asked), serve(make_engine(), moved)) > 0.9


def test_equal_hashes_are_equal_tokens_and_other_hashes_are_not(make_engine):
    engine = make_engine()
    a = engine.submit(Request(1, 0.0, 40, 2, (7, 8)))
    b = engine.submit(Request(2, 0.0, 40, 2, (7, 9)))
    assert (a.prompt_tokens[:16] == b.prompt_tokens[:16]).all()
    assert not (a.prompt_tokens[16:32] == b.prompt_tokens[16:32]).all()
    assert not (a.prompt_tokens[32:] == b.prompt_tokens[32:]).all()  # no hash: drawn from the request's id


def test_real_tokens_share_what_they_have_in_common(make_engine):
    engine = make_engine()
    prompt = [i % 300 for i in range(50)]
    first = engine.submit(request_of(0, prompt, 3, BLOCK), prompt)
    list(engine.stream())
    same = engine.submit(request_of(1, prompt, 3, BLOCK), prompt)
    other = [1, *prompt[1:]]
    differs = engine.submit(request_of(2, other, 3, BLOCK), other)
    list(engine.stream())
    assert (first.cached_tokens, same.cached_tokens, differs.cached_tokens) == (0, 48, 0)
    assert same.out == first.out


def test_large_blocks_are_runs_of_pages(make_engine):
    """A block of 128 tokens is eight pages of 16; tokens stay the same, another order of the pages changes them."""
    asked = requests(6)
    expected = serve(make_engine(), asked)
    large = make_engine(Limits(32, 128, 256, 32), page_tokens=16)
    assert large.runner.seats.pages_per_block == 8
    assert serve(large, asked) == expected
    wrong = make_engine(Limits(32, 128, 256, 32), page_tokens=16)
    wrong.runner.seats._within = wrong.runner.seats._within[::-1] * 0  # every page of a block is its first
    assert serve(wrong, asked) != expected
    with pytest.raises(InputError, match="whole pages"):
        make_engine(Limits(32, 100, 256, 32))


@pytest.mark.parametrize("overlap", [False, True])
def test_tokens_come_in_order_and_the_last_says_so(make_engine, overlap):
    engine = make_engine(overlap=overlap)
    asked = requests(8)
    served = [engine.submit(r) for r in asked]
    tokens = list(engine.stream())
    for g, r in zip(served, asked, strict=True):
        mine = [t for t in tokens if t.request == r.id]
        assert [t.index for t in mine] == list(range(r.output_tokens))
        assert [t.last for t in mine] == [False] * (r.output_tokens - 1) + [True]
        assert [t.token for t in mine] == g.out
        assert [t.time_s for t in mine] == sorted(t.time_s for t in mine)
    assert not engine.busy
    assert engine.live == {}


def event_log(engine, served):
    return EventLog(tuple(timeline_of(g) for g in served), (engine.log,), (), engine.now())


@pytest.mark.parametrize("limits", [ROOMY, TIGHT])
@pytest.mark.parametrize("overlap", [False, True])
def test_the_record_of_the_steps_keeps_the_contract(make_engine, overlap, limits):
    engine = make_engine(limits, overlap=overlap)
    served = [engine.submit(r) for r in requests()]
    tokens = list(engine.stream())
    log = event_log(engine, served)
    assert audit(log) == []
    for g, t in zip(served, log.timelines, strict=True):
        times = [token.time_s for token in tokens if token.request == g.request.id]
        assert token_times(t, log.step_logs) == pytest.approx(times, abs=1e-9)
    assert sum(engine.log.decoding) + len(served) == len(tokens) == sum(r.output_tokens for r in requests())
    assert len(engine.samples) == len(engine.log)
    missing = StepLog()  # control: a step less
    for row in range(len(engine.log) - 1):
        missing.append(*(engine.log.column(name)[row] for name in ("start_s", "steps", "base_s", "growth_s")), 0, 0)
    with pytest.raises(InputError):
        audit(EventLog(log.timelines, (missing,), (), log.end_s))


def test_samples_say_what_a_step_did(make_engine):
    engine = make_engine(Limits(64, BLOCK, 32, 4))
    engine.submit(Request(0, 0.0, 40, 3))
    list(engine.stream())
    # 40 prompt tokens in steps of 32: (32 after 0), (8 after 32); then two decodes that see 41 and 42 tokens
    assert [s[:3] for s in engine.samples] == [(((32, 0),), 0, 0), (((8, 32),), 0, 0), ((), 1, 41), ((), 1, 42)]
    assert [s.kind for s in engine.samples] == ["prefill", "prefill", "decode", "decode"]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("limits", [ROOMY, TIGHT])
def test_a_stop_token_ends_a_request(make_engine, overlap, limits):
    asked = requests()
    full = serve(make_engine(), asked)
    stops = [out[3] for out in full]  # each request stops at the first token equal to its fourth
    engine = make_engine(limits, overlap=overlap)
    served = [engine.submit(r, stop=frozenset([s])) for r, s in zip(asked, stops, strict=True)]
    tokens = list(engine.stream())
    expected = [out[: out.index(s) + 1] for out, s in zip(full, stops, strict=True)]
    assert [g.out for g in served] == expected
    assert expected != full  # control: without stopping
    assert sum(t.last for t in tokens) == len(asked)
    assert engine.scheduler.pool.used == 0
    assert engine.runner.seats.free == limits.max_batch
    assert audit(event_log(engine, served)) == []


def test_the_overlapped_loop_pays_one_row_for_a_stop(make_engine):
    rows = {}
    stop = serve(make_engine(), [Request(0, 0.0, 20, 9)])[0][4]
    for overlap in (False, True):
        engine = make_engine(overlap=overlap)
        g = engine.submit(Request(0, 0.0, 20, 9), stop=frozenset([stop]))
        list(engine.stream())
        rows[overlap] = sum(s.decodes for s in engine.samples)
        assert sum(engine.log.decoding) == len(g.out) - 1
    assert rows[True] == rows[False] + 1


def test_cancelling_frees_everything(make_engine):
    engine = make_engine(overlap=True)
    kept, gone, queued = (engine.submit(r) for r in requests(3))
    for _ in range(4):
        engine.step()
    assert len(gone.out) > 1
    engine.cancel(gone)
    engine.cancel(queued)
    engine.cancel(queued)  # nothing left to do
    list(engine.stream())
    assert len(kept.out) == kept.request.output_tokens
    assert len(gone.out) < gone.request.output_tokens
    assert audit(event_log(engine, [kept, gone, queued])) == []
    assert engine.scheduler.pool.used == 0
    assert engine.runner.seats.free == ROOMY.max_batch


def test_a_request_can_begin_with_its_cache_in_place(make_engine):
    """What a hand-off does: the pages hold the prompt, decoding starts at once."""
    request, prompt = Request(0, 0.0, 40, 6), [5] * 40
    engine = make_engine()
    whole = engine.submit(request, prompt)
    list(engine.stream())
    engine.pages.clear()
    adopted = engine.adopt(request, prompt)  # its pages are empty: other tokens than with the KV in them
    list(engine.stream())
    assert len(adopted.out) == 6
    assert adopted.out != whole.out
    assert engine.samples[-5].kind == "decode"
    late = engine.adopt(request, prompt, computed=0)  # nothing is there yet: a prefill of all
    list(engine.stream())
    assert late.out == whole.out


@pytest.mark.parametrize(
    ("request_", "prompt", "why"),
    [
        (Request(0, 0.0, 600, 600), None, "context of 1024"),
        (Request(0, 0.0, 700, 300), None, "do not fit in the pool of 512"),
        (Request(0, 0.0, 3, 2), [1, 2, 320], "outside the vocabulary"),
        (Request(0, 0.0, 3, 2), [1, 2], "2 tokens were given"),
        (Request(0, 0.0, 0, 2), None, "tokens in"),
        (Request(0, 0.0, 4, 0), None, "0 out"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_at_once(make_engine, request_, prompt, why):
    engine = make_engine(TIGHT)
    with pytest.raises(InputError, match=why):
        engine.submit(request_, prompt)
    assert len(serve(engine, [Request(1, 0.0, 4, 2)])[0]) == 2  # and the engine goes on


def test_generate_is_one_request(make_engine):
    engine = make_engine()
    prompt = [3, 1, 4, 1, 5]
    out = engine.generate(prompt, 7)
    assert len(out) == 7
    assert engine.generate(prompt, 7) == out
    assert engine.generate(prompt, 7, Sampling(1.0, seed=1)) != out
    assert engine.generate(prompt, 7, stop=[out[2]]) == out[: out.index(out[2]) + 1]


def test_times_are_those_of_the_clock_that_is_given(make_engine):
    ticks = iter(range(1000))
    engine = make_engine(clock=lambda: float(next(ticks)))
    engine.submit(Request(0, 0.0, 20, 4))
    tokens = list(engine.stream())
    assert all(t.time_s == int(t.time_s) for t in tokens)  # whole seconds: no other clock was asked
    assert all(s.seconds >= 1.0 for s in engine.samples)
