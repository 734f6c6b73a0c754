"""The policies that can be chosen by name, each with one line on what it does and where it comes from."""

from helpers.policies.admission.queue import AcceptAll, QueueCap
from helpers.policies.entry import Entry
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
from helpers.policies.zoo.mooncake import Mooncake

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
}

ADMISSIONS = {
    "none": Entry(AcceptAll, "every request is accepted", "textbook"),
    "queue_cap": Entry(
        QueueCap,
        "rejects when the chosen worker has max_waiting requests waiting",
        "as vLLM --max-num-queued-reqs (PR 49445), at the front end",
    ),
}

SCALERS = {"fixed": Entry(Fixed, "always the same number of workers", "textbook")}

KINDS = {"router": ROUTERS, "admission": ADMISSIONS, "scaler": SCALERS}
