"""Coordinated omission: the same capped run looks calm to the tools that count from the send."""

from helpers.metrics.dialects import loadgen, vllm
from helpers.metrics.dialects.client import Clock
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.clients import closed_loop
from helpers.workload.generate import generate


def medians_ms(clients: int) -> tuple[float, float]:
    """The median TTFT of 60 requests in about a second on one worker, from the send and from the schedule."""
    crowd = generate("poisson", rate_per_s=50.0, requests=60, seed=1, prompt_tokens="4000", output_tokens="50")
    run = Experiment(closed_loop(crowd, clients), Fleet(workers=1)).run()
    clock = Clock(due_s={r.id: r.arrival_s for r in crowd})
    scheduled = loadgen.report(run.log, clock=clock)["50.00 percentile first token latency (ns)"] / 1e6
    return vllm.report(run.log, clock=clock)["median_ttft_ms"], scheduled


def test_two_clients_hide_the_queue_and_enough_clients_do_not():
    sent, scheduled = medians_ms(2)
    assert scheduled > 10 * sent
    sent, scheduled = medians_ms(60)  # the control: everybody sends on time
    assert abs(scheduled - sent) < 0.05 * sent
