"""Continuous batching: the properties that hold in every step of every workload, each with a version that breaks it."""

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from helpers.scheduling import scheduler as scheduler_module
from helpers.scheduling.blocks import blocks_for
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Scheduler
from helpers.scheduling.sequence import Sequence
from helpers.workload.request import Request

MOST_STEPS = 20_000


@dataclass
class Case:
    """Sequences that come at given steps, and the limits of the worker that serves them."""

    limits: Limits
    arrivals: list[tuple[int, Request]]


@st.composite
def cases(draw):
    block = draw(st.sampled_from((1, 4, 16)))
    blocks = draw(st.integers(4, 24))
    batch = draw(st.sampled_from((1, 2, 8)))
    budget = draw(st.sampled_from((8, 13, 64)))
    limits = Limits(blocks, block, budget, batch, draw(st.sampled_from((0.0, 0.1, 0.3))))
    arrivals, step = [], 0
    for number in range(draw(st.integers(1, 12))):
        step += draw(st.sampled_from((0, 0, 1, 5)))
        output = draw(st.integers(1, max(1, blocks * block // 2)))
        prompt = draw(st.integers(1, blocks * block + 1 - output))
        root = draw(st.integers(0, 2))
        hashes = tuple(100 * root + k for k in range(blocks_for(prompt, block))) if root else ()
        priority = draw(st.sampled_from((0, 0, 1)))
        arrivals.append((step, Request(number, float(step), prompt, output, hashes, priority=priority)))
    return Case(limits, arrivals)


@dataclass
class Account:
    """What is counted of each sequence from outside, by number."""

    emitted: Counter = field(default_factory=Counter)
    computed: Counter = field(default_factory=Counter)  # since the last (re)start
    admitted: list = field(default_factory=list)  # in order of their first admission
    preempted: Counter = field(default_factory=Counter)
    finished: list = field(default_factory=list)
    cached: int = 0
    mixed_steps: int = 0  # steps with both chunks and decodes


def serve(case, scheduler_class=Scheduler):
    """Run a case to its end and check every step; returns the account."""
    scheduler = scheduler_class(case.limits)
    account = Account()
    coming = [(step, Sequence(request, request.id, request.arrival_s)) for step, request in case.arrivals]
    everyone = [s for _, s in coming]
    for now in range(MOST_STEPS):
        while coming and coming[0][0] <= now:
            assert scheduler.fits(coming[0][1])
            scheduler.add(coming.pop(0)[1])
        known = scheduler.running + scheduler.waiting
        step = scheduler.schedule()
        check_step(case.limits, scheduler, step, account)
        if known and not step:
            assert step.preempted, "there is work, and nothing happens"
        book(scheduler, step, scheduler.commit(step), account)
        check_blocks(scheduler)
        if not coming and len(account.finished) == len(everyone):
            break
    else:
        raise AssertionError("the workload does not finish")
    check_end(case, scheduler, everyone, account)
    return account


def check_step(limits, scheduler, step, account):
    tokens = sum(n for _, n in step.chunks) + len(step.decode)
    assert tokens <= limits.token_budget
    assert len(scheduler.running) + len(scheduler.reserved) <= limits.max_batch
    numbers = [s.number for s, _ in step.chunks] + [s.number for s in step.decode]
    assert len(set(numbers)) == len(numbers), "a sequence is in the step twice"
    assert {id(s) for s in (*(s for s, _ in step.chunks), *step.decode)} <= {id(s) for s in scheduler.running}
    assert not (step.preempted and len(scheduler.waiting) < len(step.preempted))
    for s, n in step.chunks:
        assert 1 <= n <= s.goal - s.computed, "a chunk is empty, or goes beyond what is known"
        assert s.computed + n <= len(s.blocks) * limits.block_tokens
    for s in step.decode:
        assert s.computed == s.prompt + s.generated - 1
        assert s.computed + 1 <= len(s.blocks) * limits.block_tokens
    for victim in step.preempted:
        account.preempted[victim.number] += 1
        account.computed[victim.number] = 0
        assert not victim.blocks and victim.computed == 0
    if step.preempted:
        mildest = min((s.priority, s.order) for s in step.preempted)
        assert all((s.priority, s.order) < mildest for s in scheduler.running), "somebody less urgent was spared"
    account.mixed_steps += bool(step.chunks and step.decode)


def book(scheduler, step, committed, account):
    bt = scheduler.limits.block_tokens
    for s, n in step.chunks:
        if not account.computed[s.number]:  # the first chunk after a (re)start
            before = s.computed - n
            assert before % bt == 0 and before <= (s.goal - 1) // bt * bt, "the whole prompt came from the cache"
            account.computed[s.number] = before
            if s.number not in account.admitted:
                account.admitted.append(s.number)
                account.cached += s.cached_tokens
                assert s.cached_tokens == before
        account.computed[s.number] += n
    for s in committed.prefilled:
        assert account.computed[s.number] == s.prompt + account.emitted[s.number], "not every token was computed once"
        account.emitted[s.number] += 1
    for s in step.decode:
        account.emitted[s.number] += 1
    account.finished += [s.number for s in committed.finished]


def check_blocks(scheduler):
    pool, block_tokens = scheduler.pool, scheduler.limits.block_tokens
    users = Counter(b for s in scheduler.running for b in s.blocks)
    assert pool.users == [users[b] for b in range(pool.total)], "users are not counted right"
    idle = pool.available - pool.fresh
    assert pool.fresh + idle + len(users) == pool.total, "a block is lost"
    assert len({*pool._fresh, *pool._idle} | set(users)) == pool.total, "a block is in two places"
    assert all(not s.blocks for s in scheduler.waiting)
    assert scheduler.waiting_tokens() == sum(
        s.goal - s.computed for s in scheduler.running + scheduler.waiting if s.computed < s.goal
    )
    for s in scheduler.running:
        assert len(s.blocks) >= blocks_for(s.computed, block_tokens)


def check_end(case, scheduler, everyone, account):
    assert scheduler.pool.used == 0, "a block is still held at the end"
    assert sorted(account.finished) == [s.number for s in everyone]
    for s in everyone:
        assert account.emitted[s.number] == s.generated == s.output
        assert s.preemptions == account.preempted[s.number]
        if not s.preemptions:
            assert s.prefilled_tokens == s.prompt - s.cached_tokens
    for priority in {s.priority for s in everyone}:
        first = [n for n in account.admitted if everyone[n].priority == priority]
        assert first == sorted(first), "a request was overtaken by a later one of its priority"


def test_every_step_of_every_workload(holds):
    holds(serve, cases(), 250)


def test_the_cases_have_every_feature():
    """A control of the generator: preemptions, cache hits and mixed steps must occur often."""
    seen = Counter()

    def count(case):
        account = serve(case)
        seen["preempted"] += bool(account.preempted)
        seen["cached"] += account.cached > 0
        seen["mixed"] += account.mixed_steps > 0

    settings(max_examples=150, derandomize=True, database=None, phases=(Phase.generate,))(given(cases())(count))()
    assert min(seen[name] for name in ("preempted", "cached", "mixed")) >= 15, seen


# -- versions that break one property each


class OverBudget(Scheduler):
    def _admit(self, step, budget):
        super()._admit(step, budget + 1)


class OverBatch(Scheduler):
    def _admit(self, step, budget):
        batch = self.limits
        self.limits = Limits(batch.kv_blocks, batch.block_tokens, batch.token_budget + 1, batch.max_batch + 1)
        super()._admit(step, budget)
        self.limits = batch


class KeepsBlocks(Scheduler):
    def _finish(self, sequence, done):
        sequence.blocks = sequence.blocks[:-1]
        super()._finish(sequence, done)


class FreesTooMuch(Scheduler):
    def _preempt(self, victim, step):
        shared = [b for b in victim.blocks if self.pool.users[b] > 1]
        super()._preempt(victim, step)
        self.pool.release(shared)


class LastComeFirst(Scheduler):
    def add(self, sequence):
        insort(self.waiting, sequence, key=lambda s: (s.priority, -s.number))


class AlwaysReserves(Scheduler):
    def _room(self):
        return self.pool.available - self.limits.reserve_blocks


class ForgetsTokens(Scheduler):
    def _preempt(self, victim, step):
        super()._preempt(victim, step)
        victim.goal = victim.prompt


class EmitsTwice(Scheduler):
    def commit(self, step):
        done = super().commit(step)
        for s in step.decode[1:]:
            if s in self.running and s.generated + 1 < s.output:
                s.generated += 1
        return done


class NeverResumes(Scheduler):
    def _preempt(self, victim, step):
        super()._preempt(victim, step)
        self.waiting.remove(victim)


@pytest.mark.parametrize(
    "broken",
    [
        *(OverBudget, OverBatch, KeepsBlocks, FreesTooMuch, LastComeFirst),
        *(AlwaysReserves, ForgetsTokens, EmitsTwice, NeverResumes),
    ],
)
def test_a_broken_scheduler_is_caught(broken, refuted, monkeypatch):
    monkeypatch.setitem(globals(), "MOST_STEPS", 2000)
    refuted(lambda case: serve(case, broken), cases(), 600)


def test_matching_a_whole_prompt_is_caught(refuted, monkeypatch):
    monkeypatch.setattr(Sequence, "matchable", lambda self, bt: min(self.goal // bt, self.full_hashes(bt)))
    refuted(serve, cases(), 600)


@pytest.mark.parametrize("key", [lambda s: -s.priority, lambda s: (s.priority, -s.order)])
def test_preempting_the_wrong_one_is_caught(key, refuted, monkeypatch):
    monkeypatch.setattr(scheduler_module, "victim_key", key)
    monkeypatch.setitem(globals(), "MOST_STEPS", 2000)
    refuted(serve, cases(), 600)


# -- hand-off between two schedulers


def hand_over(case, prefill_class=Scheduler, decode_class=Scheduler, delay=3):
    """Prefill on one scheduler, decode on another; KV takes `delay` steps on the way."""
    prefill, decode = prefill_class(case.limits, hand_off=True), decode_class(case.limits)
    coming = [(step, Sequence(request, request.id, request.arrival_s)) for step, request in case.arrivals]
    everyone, backlog, flying, finished = [s for _, s in coming], [], [], []
    for now in range(MOST_STEPS):
        while coming and coming[0][0] <= now:
            prefill.add(coming.pop(0)[1])
        while flying and flying[0][0] <= now:
            _, s, kept = flying.pop(0)
            prefill.release(kept)
            decode.join(s)
        step = prefill.schedule()
        done = prefill.commit(step)
        backlog += [s for s in done.prefilled if s not in done.finished]
        finished += done.finished
        while backlog and decode.has_room(backlog[0]):
            s = backlog.pop(0)
            kept, s.blocks = s.blocks, []
            decode.reserve(s)
            flying.append((now + delay, s, kept))
        step = decode.schedule()
        assert len(decode.running) + len(decode.reserved) <= case.limits.max_batch
        finished += decode.commit(step).finished
        users = Counter(b for s in (*prefill.running, *backlog) for b in s.blocks)
        users.update(b for _, _, kept in flying for b in kept)
        assert prefill.pool.users == [users[b] for b in range(case.limits.kv_blocks)]
        users = Counter(b for s in (*decode.running, *decode.reserved) for b in s.blocks)
        assert decode.pool.users == [users[b] for b in range(case.limits.kv_blocks)]
        if not coming and len(finished) == len(everyone):
            break
    else:
        raise AssertionError("the workload does not finish")
    assert prefill.pool.used == decode.pool.used == 0
    assert all(s.generated == s.output for s in everyone)


def test_a_hand_off_keeps_its_blocks_until_they_are_copied(holds):
    holds(hand_over, cases(), 100)


class DropsReserved(Scheduler):
    def join(self, sequence):
        sequence.blocks = sequence.blocks[1:]
        super().join(sequence)


class ForgetsReserved(Scheduler):
    def has_room(self, sequence):
        return blocks_for(sequence.computed, self.limits.block_tokens) <= self.pool.available


def test_a_broken_hand_off_is_caught(refuted, monkeypatch):
    monkeypatch.setitem(globals(), "MOST_STEPS", 2000)
    for broken in (DropsReserved, ForgetsReserved):
        refuted(lambda case, broken=broken: hand_over(case, decode_class=broken), cases())
