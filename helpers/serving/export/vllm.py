"""vLLM: flags of its engines, and of production-stack's router before them."""

from helpers.serving.export.answer import Carried, Choice, Component, Export, Nothing, answer, nothing
from helpers.serving.export.vllm_engine import NIXL, SPLIT_NOTE, engine_flags

SOURCES = (
    "vllm-project/production-stack src/vllm_router/parsers/parser.py at a6c01db0",
    "vllm-project/vllm docs/serving/data_parallel_deployment.md at 01e4fce0",
    "docs/features/nixl_connector_usage.md at 026c83f9",
    "vllm/config/scheduler.py (max_num_queued_reqs, max_num_queued_tokens) of 2026, see PR 49445",
)
ANOTHER = "it is the rule of another system"
SESSIONS = "only sessions are hashed, by the header named; a request without one goes where the fewest were sent"
ROUTER = ("vllm-router",)
DATA_PARALLEL = "data-parallel engine"


def _sessions(p: dict, choice: Choice) -> Carried:
    return Carried({"--routing-logic": "session", "--session-key": "x-session-id"}, notes=(SESSIONS,))


def _kvaware(p: dict, choice: Choice) -> Carried:
    """The router's threshold is in tokens, as ours."""
    return Carried({"--routing-logic": "kvaware", "--kv-aware-threshold": p["threshold_tokens"]}, ("threshold_tokens",))


def _dp(p: dict, choice: Choice) -> Carried | Nothing:
    if choice.split:
        return Nothing("the balancer between data-parallel engines knows no pools")
    engine = {"--data-parallel-size": choice.fleet.workers, "--api-server-count": p["clients"]}
    notes = ("the engines are ranks of one server, without a router; which rule they balance by is up to the version",)
    return Carried(engine=engine, used=("clients",), notes=notes, parts=(DATA_PARALLEL,))


LOGICS = "among the choices of --routing-logic there is no such rule"
ROUTERS = {
    "random": nothing(LOGICS),
    "round_robin": lambda p, choice: Carried({"--routing-logic": "roundrobin"}),
    "static_shard": _sessions,
    "least_requests": nothing(LOGICS),
    "least_tokens": nothing(LOGICS),
    "power_of_two": nothing(LOGICS),
    "prefix_approx": nothing("prefixaware follows the longest match in what it sent, and weighs no load against it"),
    "prefix_exact": nothing("kvaware follows the first holder of the prefix, and weighs no load against it"),
    "mooncake": nothing(LOGICS),
    "split_policy": nothing(LOGICS),
    "dynamo": nothing(ANOTHER),
    "dynamo_lmetric": nothing(ANOTHER),
    "sglang_cache_aware": nothing(ANOTHER),
    "llm_d": nothing(ANOTHER),
    "aibrix": nothing(ANOTHER),
    "aibrix_preble": nothing(ANOTHER),
    "production_stack": nothing("loadaware came with PR 1035 and is not among the choices of the version read"),
    "production_stack_kvaware": _kvaware,
    "vllm_dp": _dp,
    "vllm_dp_inflight": _dp,
    "session": _sessions,
    "predicted_ttft": nothing(LOGICS),
    "feedback": nothing(LOGICS),
}


def _queue_cap(p: dict, choice: Choice) -> Carried:
    limit = choice.fleet.max_batch + p["max_waiting"]
    note = "it counts requests running and waiting of one API server: --max-num-seqs + max_waiting"
    return Carried(engine={"--max-num-queued-reqs": limit}, used=("max_waiting",), notes=(note,))


def _token_cap(p: dict, choice: Choice) -> Carried | Nothing:
    if p["max_tokens"] is None:
        return Nothing("its cap is a number, not derived from an SLO; give max_tokens")
    note = "there a prompt counts whole until its first token, here what is left of it"
    return Carried(engine={"--max-num-queued-tokens": p["max_tokens"]}, used=("max_tokens",), notes=(note,))


NO_RULE = "an engine refuses by --max-num-queued-reqs and --max-num-queued-tokens alone"
ADMISSIONS = {
    "none": lambda p, choice: Carried(),
    "queue_cap": _queue_cap,
    "token_cap": _token_cap,
    **dict.fromkeys(
        ("probabilistic", "predicted_slo", "predicted_load", "measured_slo", "self_exciting", "early_rejection"),
        nothing(NO_RULE),
    ),
    "priority_tiers": nothing("--scheduling-policy priority orders an engine's queue; nothing keeps a reserve"),
    "fair": nothing("nothing counts tokens by tenant"),
    "router_queue": nothing("the router holds nobody back"),
}


def export(choice: Choice) -> Export:
    """The engines with the admission, and the router before them."""
    router, lost = answer(ROUTERS, "router", choice)
    admission, refused = answer(ADMISSIONS, "admission", choice)
    flags, notes, words = dict(router.flags), list(router.notes), ("vllm", "serve", '"$MODEL"')
    if choice.split:
        if flags:
            lost += (f"router {choice.router}: a split fleet has a logic of its own, which chooses by pool alone",)
        labels = {"--prefill-model-labels": "prefill", "--decode-model-labels": "decode"}
        flags, notes = {"--routing-logic": "disaggregated_prefill", **labels}, list(SPLIT_NOTE)
    components = []
    if flags:
        flags |= _backends(choice)
        components.append(Component("router", ROUTER, flags))
    for role in ("mixed", "prefill", "decode"):
        if count := choice.count(role):
            hand_over = {} if role == "mixed" else NIXL
            engine = {**engine_flags(choice.fleet), **hand_over, **router.engine, **admission.engine}
            started = 1 if DATA_PARALLEL in router.parts else count
            components.append(Component(f"{role} engine", words, engine, started))
    return Export("vllm", SOURCES, tuple(components), None, (*notes, *admission.notes), lost + refused + choice.beside)


def _backends(choice: Choice) -> dict[str, object]:
    """The engines, as the router is told of them."""
    workers = range(choice.fleet.workers)
    urls, models = ",".join(f"$WORKER_{i}" for i in workers), ",".join("$MODEL" for _ in workers)
    labels = {"--static-model-labels": ",".join(choice.fleet.roles)} if choice.split else {}
    return {"--service-discovery": "static", "--static-backends": urls, "--static-models": models, **labels}
