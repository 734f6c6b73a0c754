"""What the explorers of simulated runs share: their controls, the draw of requests, the fleet, and the run itself.

Draws and runs are kept for a while, so that moving a control which does not change them (an SLO that no policy looks
at, a second router, a window) costs no simulation. They are pure functions of their arguments, so nothing else shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.metrics.timeline import EventLog
from helpers.policies import registry
from helpers.policies.facts import Facts
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator.views import Telemetry
from helpers.widgets.explorer import Record, Value, choice, number
from helpers.widgets.explorers.hardware import hardware_of, step_times
from helpers.widgets.hardware import DEFAULT
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

MODEL = "llama-3.1-8b"
# Generator and knobs by option. The lengths of documents spread less than by default, so that a draw, in which a few
# documents are most of the load, is not a matter of luck.
WORKLOADS = MappingProxyType(
    {
        "documents": (
            "documents",
            (("document_tokens", "lognormal:6000:0.3"), ("tenant_tokens", "lognormal:1200:0.2")),
        ),
        "agents": ("agents", (("causal", False),)),
        "apart": ("poisson", (("prompt_tokens", "lognormal:1500:1.0"), ("output_tokens", "lognormal:200:0.8"))),
    }
)
WORKLOAD_LABELS = {
    "documents": "documents: questions about shared texts",
    "agents": "agents: tool loops that grow their prompt",
    "apart": "apart: prompts that share nothing",
}
ROUTERS = {
    "round_robin": "round_robin: the workers in turn",
    "random": "random: any worker",
    "least_requests": "least_requests: join the shortest queue",
    "least_tokens": "least_tokens: fewest tokens to compute and hold",
    "power_of_two": "power_of_two: the shorter of two queues",
    "static_shard": "static_shard: by a hash of the prompt's beginning",
    "session": "session: stay with the worker of the session",
    "prefix_approx": "prefix_approx: cached prefix, guessed, and load",
    "prefix_exact": "prefix_exact: cached prefix, from KV events, and load",
    "predicted_ttft": "predicted_ttft: least predicted TTFT",
    "feedback": "feedback: fewest requests, weighted by measured latency",
    "mooncake": "mooncake: as Mooncake's Conductor",
    "dynamo": "dynamo: as Dynamo's KV router",
    "sglang_cache_aware": "sglang_cache_aware: as SGLang's gateway",
    "llm_d": "llm_d: as llm-d's endpoint picker",
    "vllm_dp": "vllm_dp: as vLLM's data-parallel balancer",
    "production_stack": "production_stack: as vLLM production-stack",
    "aibrix": "aibrix: as AIBrix's prefix cache",
}
ADMISSIONS = {
    "none": "none: every request is accepted",
    "queue_cap": "queue_cap: at most 8 wait on a worker",
    "token_cap": "token_cap: prompt tokens that fit the TTFT bound",
    "predicted_slo": "predicted_slo: reject what would miss its SLO",
    "predicted_load": "predicted_load: reject what would find its decode worker full",
    "early_rejection": "early_rejection: as data/dynamo_config.yaml",
}
ADMISSION_PARAMETERS = MappingProxyType({"queue_cap": {"max_waiting": 8}})

WORKLOAD = choice("workload", "workload", "documents", WORKLOAD_LABELS, "Generated, frozen by the draw below.")
RATE = number("rate_per_s", "arrival rate", 16.0, (0.5, 200.0), 0.1, "requests/s", True, "The offered rate, open loop.")
BURSTINESS = number(
    "burstiness",
    "burstiness",
    1.0,
    (0.1, 10.0),
    0.01,
    "",
    True,
    "Gamma shape of the gaps: 1 is Poisson, lower burstier.",
)
WORKERS = number("workers", "workers", 4, (1, 64), 1, help="Each is one device with the whole model.")
PREFILL = number(
    "prefill_workers", "of them prefill only", 0, (0, 63), 1, help="0: all mixed. 2 of 4 workers: the split 2P2D."
)
ROUTER = choice("router", "router", "round_robin", ROUTERS, "Which worker gets a request.")
SEED = number("seed", "draw", 0, (0, 99), 1, help="Another number draws other arrivals, lengths and prefixes.")


@dataclass(frozen=True, slots=True)
class Draw:
    """Which requests: a generator with its knobs, the rate, the burstiness, how many, and the seed."""

    generator: str
    knobs: tuple[tuple[str, Value], ...]
    rate_per_s: float
    burstiness: float
    requests: int
    seed: int
    block_tokens: int = 512


def draw_of(values: Mapping[str, Value], requests: int) -> Draw:
    """The draw that the controls ask for."""
    name, knobs = WORKLOADS[values["workload"]]
    return Draw(name, knobs, values["rate_per_s"], values["burstiness"], requests, values["seed"])


@lru_cache(maxsize=4)
def workload_of(draw: Draw) -> Workload:
    """The requests. The last of N comes at N / rate, so that the offered rate is exact however bursty the draw is."""
    return generate(
        draw.generator,
        rate_per_s=draw.rate_per_s,
        requests=draw.requests,
        seed=draw.seed,
        block_tokens=draw.block_tokens,
        exact_rate=True,
        burstiness=draw.burstiness,
        **dict(draw.knobs),
    )


def fleet_of(values: Mapping[str, Value], record: Record, staleness_s: float = 0.0, **more) -> tuple[Fleet, str]:
    """The fleet that the controls ask for, and where its step times come from, in words.

    `more` are further fields of the fleet. A machine that is not in data/hardware.toml borrows KV memory and network
    from the default part, and the words say so.
    Raises `InputError` when no worker is left to decode, and for a split fleet without a network.
    """
    hardware = hardware_of(values["hardware"], record)
    workers, prefill = values["workers"], values["prefill_workers"]
    if prefill >= workers:
        raise InputError(
            f"{prefill} of {workers} workers prefill only, so none decodes; lower that number or add workers"
        )
    part = gpu(hardware.gpu or DEFAULT)
    if prefill and not part.has("nic_bytes_per_s"):
        raise InputError(
            f"{part.name} has no network figure, so that KV cannot be handed over; use mixed workers there"
        )
    words = step_times(hardware) if hardware.gpu else f"{step_times(hardware)}, KV memory and network of {part.name}"
    split = f"{prefill}P{workers - prefill}D" if prefill else None
    telemetry = Telemetry(staleness_s)
    return Fleet(MODEL, part.key, workers, split, telemetry=telemetry, cost=hardware.cost, **more), words


def split_name(fleet: Fleet) -> str:
    """`4 mixed workers`, or `2P2D`."""
    return fleet.split or f"{fleet.workers} mixed worker{'s' if fleet.workers > 1 else ''}"


def simulate(draw: Draw, fleet: Fleet, router: str, admission: str = "none", slo: SLO | None = None) -> EventLog:
    """The event log of one run from an empty fleet. `slo` is what the policies are told, if they ask."""
    slo = slo or SLO()
    told = slo if _asks("router", router) or _asks("admission", admission) else SLO()
    return _simulated(draw, fleet, router, admission, told)


@lru_cache(maxsize=8)
def _simulated(draw: Draw, fleet: Fleet, router: str, admission: str, slo: SLO) -> EventLog:
    made = workload_of(draw)
    parameters = ADMISSION_PARAMETERS.get(admission, {})
    asked = Experiment(made, fleet, router, admission, slo, draw.seed, admission_parameters=parameters)
    return asked.cluster().run(made.requests)


def _asks(kind: str, name: str) -> bool:
    """Whether a policy looks at the SLO, so that another SLO is another run."""
    return "slos" in registry.find(kind, name).facts(Facts())
