"""Tokens of a request come from two processes, in either order, and are heard in the order in which they were made."""

from dataclasses import replace

import pytest

from helpers.cluster.books import Books, Ticket
from helpers.metrics.audit import audit
from helpers.scheduling.sequence import Sequence
from helpers.serving.cluster_backend import ClusterOptions
from helpers.serving.experiment import Experiment
from helpers.workload.request import Request
from tests.cluster.conftest import TWO, workload

SPLIT = replace(TWO, split="1P1D")


class Late:
    """The workers of a crew, but what the prefill worker says of a first token comes after the second token of it."""

    def __init__(self, crew):
        self._crew, self._kept, self._due, self.overtaken = crew, {}, [], 0

    def __getattr__(self, name):
        return getattr(self._crew, name)

    def receive(self, seconds):
        due, self._due = self._due, []
        yield from due
        for worker, message in self._crew.receive(seconds):
            numbers = [number for number, *_ in message.get("tokens", ())]
            if worker == 0 and numbers:
                self._kept.update(dict.fromkeys(numbers, message))
                continue
            yield worker, message
            found = [(0, self._kept.pop(number)) for number in numbers if number in self._kept]
            self._due += found
            self.overtaken += len(found)


def served(crew):
    options = ClusterOptions(workers=crew, limit_s=60, hang_s=50, keep_logits=True)
    return Experiment(workload(4, gap_s=0.15), SPLIT).run(on="engine", engine=options)


def test_a_second_token_that_comes_first_is_heard_second(crew, monkeypatch):
    usual, late = served(crew), Late(crew)
    found = served(late)
    assert late.overtaken == 4
    assert found.tokens == usual.tokens and audit(found.log) == []
    assert {i: len(rows) for i, rows in found.logits.items()} == {i: len(rows) for i, rows in usual.logits.items()}
    monkeypatch.setattr(Ticket, "is_early", lambda ticket, worker: False)  # the control: as they come
    swapped = served(Late(crew)).tokens
    assert set(swapped) == set(usual.tokens) and swapped != usual.tokens
    for i, one in usual.tokens.items():  # on a busy machine the first token comes after more than one
        assert any(swapped[i] == [*one[1:after], one[0], *one[after:]] for after in range(2, len(one) + 1))


def test_a_try_whose_first_token_never_came_needs_its_prefill_worker():
    one = Ticket(7, Sequence(Request(7, 0.0, 100, 4), 7, 0.0), 0, 1, joined=False)
    assert one.is_on(0) and one.is_on(1) and one.is_early(1) and not one.is_early(0)
    one.joined = True
    assert one.is_on(0)  # its token was lost with the worker
    step = {"row": [0.0, 1.0, 0, 0], "chunks": [], "tokens": [[7, 5, True, False, 0]]}
    Books(2).step(0, step, {7: one}, {7: one})
    assert one.begun and not one.is_on(0) and one.is_on(1) and not one.is_early(1)


@pytest.mark.parametrize("worker", [0, 1])
def test_what_is_served_on_one_worker_is_never_early(worker):
    assert not Ticket(1, Sequence(Request(1, 0.0, 9, 2), 1, 0.0), worker, worker, joined=True).is_early(worker)
