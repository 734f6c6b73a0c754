"""From the reports of workers to a record that keeps the contract of every backend."""

from helpers.cluster.books import Books, Ticket
from helpers.metrics.audit import audit
from helpers.metrics.timeline import EventLog, WorkerInfo, token_times
from helpers.scheduling.sequence import Sequence
from helpers.simulator.record import timeline_of
from helpers.workload.request import Request


def step(start_s, seconds, chunks=(), tokens=()):
    return {"row": [start_s, seconds, 0, 0], "chunks": list(chunks), "tokens": list(tokens)}


def ticket(number, prefill=0, decode=1, output=4):
    return Ticket(number, Sequence(Request(number, 0.0, 100, output), number, 0.0), prefill, decode, prefill == decode)


def entered(books, one, live=True):
    """A prefill of two steps on worker 0, then three decodes on worker 1, the last after a step without it."""
    known = {one.number: one}
    there = known if live else {}
    books.step(0, step(1.0, 0.5, [[one.number, 60, 0, 0, 1.0]]), known, there)
    books.step(0, step(1.5, 0.5, [[one.number, 40, 60, 0, 1.0]], [[one.number, 7, True, False, 0]]), known, there)
    books.joined([one.number, 1.75, 2.0, 4096, 8, 0, [1.8, None, 1.9, 1.95]], there)
    for start_s in (2.0, 3.0):
        books.step(1, step(start_s, 0.25, tokens=[[one.number, 8, False, False, 0]]), known, there)
    books.step(1, step(3.25, 0.25), known, there)
    return books.step(1, step(4.0, 0.25, tokens=[[one.number, 9, False, True, 0]]), known, there)


def test_a_hand_off_becomes_one_timeline():
    books, one = Books(2), ticket(0)
    credited = entered(books, one)
    assert credited.end_s == 4.25
    assert [(t.number, token, first, ended) for t, token, first, ended in credited.tokens] == [(0, 9, False, True)]
    s = one.sequence
    s.status, s.finished_s = "finished", credited.end_s
    assert (s.first_token_s, s.prefilled_tokens, s.generated, s.spans) == (2.0, 100, 4, ((1, 0, 1), (1, 3, 3)))
    assert (s.transfer_start_s, s.transfer_end_s, books.moved_bytes, books.checked) == (1.75, 2.0, 4096, 8)
    log = EventLog((timeline_of(s),), books.logs, (WorkerInfo("prefill"), WorkerInfo("decode")), 5.0)
    assert audit(log) == []
    assert token_times(log.timelines[0], log.step_logs) == [2.0, 2.25, 3.25, 4.25]
    assert books.tokens == {0: [7, 8, 8, 9]}


def test_what_a_given_up_try_still_puts_out_is_nobodys():
    books, one = Books(2), ticket(0)
    entered(books, one, live=False)
    assert books.tokens == {}
    assert books.ignored == 4
    assert one.sequence.generated == 0
    assert list(books.logs[1].decoding) == [0, 0, 0, 0]
    assert one.sequence.prefilled_tokens == sum(books.logs[0].prefilled) == 100  # the work was done all the same


def test_which_worker_a_try_needs():
    split = ticket(0)
    assert split.is_on(0) and split.is_on(1) and not split.is_on(2)
    split.joined = split.begun = True
    assert not split.is_on(0)  # its KV has left
    assert split.is_on(1)
