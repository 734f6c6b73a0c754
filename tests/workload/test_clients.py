"""A limited number of clients behind a schedule."""

import pytest

from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.clients import closed_loop
from helpers.workload.generate import generate


def burst(requests: int = 60):
    return generate("poisson", rate_per_s=50.0, requests=requests, seed=1, prompt_tokens="4000", output_tokens="50")


def most_in_flight(run) -> int:
    moments = [(t.arrival_s, 1) for t in run.timelines] + [(t.finished_s, -1) for t in run.timelines]
    count = most = 0
    for _, change in sorted(moments):
        count += change
        most = max(most, count)
    return most


@pytest.mark.parametrize("clients", [1, 4, 16])
def test_no_more_requests_are_in_flight_than_there_are_clients(clients):
    workload = burst()
    capped = Experiment(closed_loop(workload, clients), Fleet(workers=1)).run()
    assert most_in_flight(capped) == clients
    assert most_in_flight(Experiment(workload, Fleet(workers=1)).run()) > 16  # the control: without a limit


def test_requests_are_never_sent_before_their_time():
    workload = burst()
    due = {r.id: r.arrival_s for r in workload}
    capped = Experiment(closed_loop(workload, 4), Fleet(workers=1)).run()
    waits = [t.arrival_s - due[t.id] for t in capped.timelines]
    assert min(waits) >= 0 and max(waits) > 1


def test_enough_clients_change_nothing():
    workload = burst()
    free = Experiment(workload, Fleet(workers=1)).run()
    capped = Experiment(closed_loop(workload, len(workload)), Fleet(workers=1)).run()
    assert [t.first_token_s for t in capped.timelines] == [t.first_token_s for t in free.timelines]


def test_the_repair_is_recorded_and_the_digest_changes():
    workload = burst()
    capped = closed_loop(workload, 4)
    assert capped.repairs == ("sent by 4 clients",) and capped.sha256 != workload.sha256


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="0 clients"):
        closed_loop(burst(), 0)
    with pytest.raises(InputError, match="closed loop"):
        closed_loop(closed_loop(burst(), 4), 4)
