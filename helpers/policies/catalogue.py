"""The policies that can be chosen by name, each with one line on what it does and where it comes from."""

from helpers.policies.admission.decode_load import PredictedLoad
from helpers.policies.admission.early_rejection import EarlyRejection
from helpers.policies.admission.estimates import MeasuredSLO, SelfExciting
from helpers.policies.admission.fairness import Fair
from helpers.policies.admission.predicted import PredictedSLO
from helpers.policies.admission.queue import AcceptAll, QueueCap, TokenCap
from helpers.policies.admission.router_queue import RouterQueue
from helpers.policies.admission.shedding import Probabilistic
from helpers.policies.admission.tiers import PriorityTiers
from helpers.policies.entry import Entry
from helpers.policies.feedback import Feedback
from helpers.policies.predictive import PredictedTTFT
from helpers.policies.prefix_routing import PrefixApprox, PrefixExact
from helpers.policies.routing import (
    LeastRequests,
    LeastTokens,
    PowerOfTwo,
    RandomRouter,
    RoundRobin,
    StaticShard,
)
from helpers.policies.scaling.fixed import Fixed
from helpers.policies.scaling.roles import Roles
from helpers.policies.scaling.sla_planner import SLAPlanner
from helpers.policies.scaling.thresholds import Thresholds
from helpers.policies.session import Session
from helpers.policies.split_policy import SplitPolicy
from helpers.policies.zoo.aibrix import AIBrix
from helpers.policies.zoo.dynamo import Dynamo, DynamoLMetric
from helpers.policies.zoo.llm_d import LLMD
from helpers.policies.zoo.mooncake import Mooncake
from helpers.policies.zoo.preble import Preble
from helpers.policies.zoo.production_stack import KVAware, LoadAware
from helpers.policies.zoo.sglang import SGLangCacheAware
from helpers.policies.zoo.vllm_dp import VllmDP, VllmDPInFlight

ROUTERS = {
    "random": Entry(RandomRouter, "a worker drawn uniformly", "textbook"),
    "round_robin": Entry(RoundRobin, "the workers in turn", "textbook"),
    "static_shard": Entry(
        StaticShard,
        "the worker that the session (else the prompt's first blocks, else the id) hashes to",
        "textbook; as vLLM production-stack's hash of the conversation key",
    ),
    "least_requests": Entry(
        LeastRequests, "the worker with the fewest requests, waiting or running", "textbook: join the shortest queue"
    ),
    "least_tokens": Entry(
        LeastTokens,
        "the worker with the fewest tokens: waiting_tokens + kv_weight x kv_tokens",
        "as Splitwise's token-based join the shortest queue; the weight is this course's",
    ),
    "power_of_two": Entry(
        PowerOfTwo, "of two workers drawn uniformly, the one with fewer requests", "Mitzenmacher, IEEE TPDS 2001"
    ),
    "prefix_approx": Entry(
        PrefixApprox,
        "least uncached prompt + load, the cache guessed from this router's own dispatches",
        "the form of Dynamo's KV router without KV events",
    ),
    "prefix_exact": Entry(
        PrefixExact,
        "least uncached prompt + load, the cache known from KV events",
        "the form of Dynamo's KV router with KV events",
    ),
    "mooncake": Entry(
        Mooncake,
        "least predicted TTFT: copy of a prefix + queue + prefill, the cache known from KV events",
        "Mooncake's Conductor, FAST'25, Algorithm 1",
    ),
    "split_policy": Entry(
        SplitPolicy,
        "most points for a cached prefix, a short queue and few running; short prompts prefilled by decode workers",
        "the split_policy of data/dynamo_config.yaml, as this course reads it",
    ),
    "dynamo": Entry(
        Dynamo,
        "least prefill to compute + KV to hold, in blocks, cached blocks credited",
        "as Dynamo's KV router, linear cost (selector/default.rs at 07a6c9ce)",
    ),
    "dynamo_lmetric": Entry(
        DynamoLMetric,
        "least product of prefill to compute and KV to hold + 1, in blocks",
        "as Dynamo's KV router, lmetric (router-concepts.md at 03037af0)",
    ),
    "sglang_cache_aware": Entry(
        SGLangCacheAware,
        "shortest queue when uneven, else the longest match above a threshold, else least loaded",
        "as SGLang's gateway, cache_aware (cache_aware.rs at 053b63ff)",
    ),
    "llm_d": Entry(
        LLMD,
        "highest weighted sum of cached prefix, free KV and short queue; filters and predicted latency on demand",
        "as llm-d's endpoint picker (llm-d-inference-scheduler at 520af478)",
    ),
    "aibrix": Entry(
        AIBrix,
        "the longest match among workers not busier than the mean + 1 sigma; fewest requests when these are uneven",
        "as AIBrix's prefix-cache (prefix_cache.go at e3e10f9e)",
    ),
    "aibrix_preble": Entry(
        Preble,
        "the least loaded holder when most of the prompt was sent before, else the least predicted work of 3 minutes",
        "as AIBrix's prefix-cache-preble (prefix_cache_preble.go at e3e10f9e)",
    ),
    "production_stack": Entry(
        LoadAware,
        "most of: share of the prompt cached - beta x load relative to the mean",
        "as vLLM production-stack's loadaware (PR 1035)",
    ),
    "production_stack_kvaware": Entry(
        KVAware,
        "a counter-example: the first holder of the prompt's beginning, however busy",
        "as vLLM production-stack's kvaware (routing_logic.py at a6c01db0)",
    ),
    "vllm_dp": Entry(
        VllmDP,
        "fewest of 4 x waiting + running, own dispatches since the report added",
        "as vLLM's data-parallel balancer (core_client.py, v0.10.2)",
    ),
    "vllm_dp_inflight": Entry(
        VllmDPInFlight,
        "fewest of own requests under way or reported ones, waiting ones dearer as KV memory fills",
        "as vLLM's data-parallel balancer since PR 49204 (core_client.py at 00080ee1)",
    ),
    "session": Entry(
        Session,
        "the worker of the session, until it is overloaded or gone; else the fewest own requests",
        "sticky sessions, bounded as Mirrokni et al., SODA 2018",
    ),
    "predicted_ttft": Entry(
        PredictedTTFT,
        "least predicted TTFT, cached prefix and own dispatches counted in; on demand TPOT above its SLO too",
        "this course; the idea of Mooncake and of llm-d's predicted latency",
    ),
    "feedback": Entry(
        Feedback,
        "fewest own requests, weighted by measured TTFT and TPOT with a margin and a dwell time",
        "this course; textbook control with hysteresis",
    ),
}

ADMISSIONS = {
    "none": Entry(AcceptAll, "every request is accepted", "textbook"),
    "queue_cap": Entry(
        QueueCap,
        "rejects when the chosen worker has max_waiting requests waiting",
        "as vLLM --max-num-queued-reqs (PR 49445), at the front end",
    ),
    "token_cap": Entry(
        TokenCap,
        "rejects when the chosen worker has so many prompt tokens waiting: TTFT bound x prefill rate",
        "as vLLM --max-num-queued-tokens (PR 49445), at the front end",
    ),
    "probabilistic": Entry(
        Probabilistic,
        "rejects low priorities with p = 300 x saturation ** 5 of the fleet",
        "llm-d's probabilistic admitter, 2026-05",
    ),
    "predicted_slo": Entry(
        PredictedSLO,
        "rejects what is predicted to miss its TTFT or TPOT bound on the chosen workers",
        "Mooncake's Algorithm 1, FAST'25; anywhere=true: llm-d's latency-SLO admitter",
    ),
    "predicted_load": Entry(
        PredictedLoad,
        "rejects when the decode worker will be full at the end of the prefill (or is now, or was then: mode)",
        "early rejection based on prediction, Mooncake, arXiv 2407.00079, section 7",
    ),
    "measured_slo": Entry(
        MeasuredSLO,
        "rejects what would miss its TTFT bound at the measured prefill seconds per token, queue left out",
        "this course",
    ),
    "self_exciting": Entry(
        SelfExciting,
        "a counter-example: averages estimates that contain the queue, and turns away from idle workers",
        "what is wrong with it is an exercise of this course",
    ),
    "early_rejection": Entry(
        EarlyRejection,
        "rejects low priorities above a predicted TTFT, and on demand whoever is predicted to miss his SLO",
        "the qos of data/dynamo_config.yaml, as this course reads it",
    ),
    "priority_tiers": Entry(
        PriorityTiers,
        "each tier may fill the fleet up to its share; deadlines that cannot be met are refused",
        "trunk reservation, textbook",
    ),
    "fair": Entry(
        Fair,
        "holds requests and sends those of the tenant who has been served least",
        "virtual token counter, Sheng et al., OSDI'24",
    ),
    "router_queue": Entry(
        RouterQueue,
        "holds requests while all workers have threshold x token_budget prompt tokens; fcfs, lcfs or wspt",
        "Dynamo's KV router, --router-queue-threshold, 1.3",
    ),
}

SCALERS = {
    "fixed": Entry(Fixed, "always the same number of workers", "textbook"),
    "thresholds": Entry(
        Thresholds,
        "one worker more when any of queue, utilisation and KV use is high, one fewer when all are low",
        "the autoscale block of data/dynamo_config.yaml, as Kubernetes' autoscaler steps",
    ),
    "sla_planner": Entry(
        SLAPlanner,
        "one more when all are predicted over TTFT or ITL, one fewer when the rest would keep them; the demand's floor",
        "Dynamo's planner (load and throughput mode; PRs 6145 and 9294)",
    ),
    "roles": Entry(
        Roles,
        "a worker changes between prefill and decode when that lowers the larger predicted pressure",
        "the idea of DistServe's replanning and of Arrow (arXiv 2505.11916); the formula is this course's",
    ),
}

KINDS = {"router": ROUTERS, "admission": ADMISSIONS, "scaler": SCALERS}
