"""Service times: sums of steps, and what queueing theory needs of them."""

from statistics import fmean, pvariance

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.service import prefill_s, service_of
from helpers.errors import InputError
from helpers.metrics.latency import distribution, ttft_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Request, Workload

COST = AffineCost(0.01, 1e-4, 1e-9, 1e-3, 1e-6)


def test_a_prefill_is_the_sum_of_its_chunks():
    chunks = COST.step([(2048, 0)], 0, 0) + COST.step([(2048, 2048)], 0, 0) + COST.step([(904, 4096)], 0, 0)
    assert prefill_s(COST, 5000) == pytest.approx(chunks)
    assert prefill_s(COST, 5000, 5000) == pytest.approx(COST.step([(5000, 0)], 0, 0))
    assert prefill_s(COST, 5000) != pytest.approx(prefill_s(COST, 5000, 5000))  # each chunk pays the overhead


def test_the_simulator_serves_an_idle_request_in_that_time():
    alone = generate("steady", rate_per_s=0.1, requests=3, seed=0, prompt_tokens="5000", output_tokens="1")
    run = Experiment(alone, Fleet(workers=1, cost=COST)).run()
    assert distribution(ttft_s, run.timelines).mean == pytest.approx(prefill_s(COST, 5000))


def test_means_variation_and_share():
    requests = tuple(Request(i, float(i), tokens, 10) for i, tokens in enumerate((100, 1000, 5000, 5000)))
    service = service_of(Workload("hand", requests), COST)
    times = [prefill_s(COST, r.prompt_tokens) for r in requests]
    assert service.mean_s == pytest.approx(fmean(times))
    assert service.cv2 == pytest.approx(pvariance(times) / fmean(times) ** 2)
    assert service.share_above(times[1]) == pytest.approx(0.5)
    assert service.kv_read_s[0] == pytest.approx(1e-6 * sum(100 + k + 0.5 for k in range(10)))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="0 tokens"):
        prefill_s(COST, 0)
    with pytest.raises(InputError, match="no request"):
        service_of(Workload("empty", ()), COST)
