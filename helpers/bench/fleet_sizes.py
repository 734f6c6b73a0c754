"""One router after the other on fleets of 4 to 64 workers: goodput at one rate a worker, and the knee.

A larger fleet gets more users, not faster ones: for each size and seed the conversation generator draws the traffic
at so many requests a second and worker, so that think times stay what they are and the requests of one conversation
come further apart in the stream. The search for a knee then lets the requests of a draw come faster or slower.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from helpers.checkout import commit
from helpers.errors import InputError
from helpers.metrics.stats import compare, mean_interval
from helpers.metrics.summary import summarize
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.knees import counted, knee_of_seed
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

SIZES = (4, 16, 64)
REFERENCE = "round_robin"
ROUTERS = (REFERENCE, "power_of_two", "least_tokens", "prefix_exact", "llm_d", "sglang_cache_aware")
BOUNDS = SLO(ttft_s=2.0, tpot_s=0.05)
FIGURES = ("goodput_per_s", "attainment", "hit_rate", "imbalance")
PER_WORKER = ("goodput_per_s", "knee_per_s")  # stated for one worker, so that sizes can be compared


@dataclass(frozen=True)
class Setup:
    """What is the same at every size: `rate_per_s` is offered to each worker, arrivals count from `warmup_s` on.

    A draw lasts `duration_s`, on small fleets longer: until there are `requests`. A worker of Llama-3.1-8B on an H100
    caches 464,384 tokens and gets about 10,000 prompt tokens a second, so that it is full before a minute is over.
    """

    rate_per_s: float = 0.8
    duration_s: float = 240.0
    warmup_s: float = 80.0
    requests: int = 3072
    target: float = 0.9
    slo: SLO = BOUNDS

    def draw(self, workers: int, seed: int) -> Workload:
        """The traffic of a fleet; raises `InputError` for no workers."""
        if workers < 1:
            raise InputError(f"a fleet of {workers} workers serves nothing; give at least one")
        rate_per_s = self.rate_per_s * workers
        requests = max(self.requests, round(rate_per_s * self.duration_s))
        return generate("conversation", rate_per_s=rate_per_s, requests=requests, seed=seed)


def fleet_sizes(
    sizes: Sequence[int] = SIZES,
    routers: Sequence[str] = ROUTERS,
    seeds: Sequence[int] = range(5),
    setup: Setup | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict:
    """The record: raw values of every run, and rows with 95 % intervals over seeds and paired differences."""
    setup = setup or Setup()
    if REFERENCE not in routers:
        raise InputError(f"bench fleet-sizes compares with {REFERENCE}; name it among the routers")
    raw = list(_runs(sizes, routers, seeds, setup, tick))
    fleet = Fleet(workers=sizes[0]).describe()
    told = {"workers": list(sizes), "slo": asdict(setup.slo), **_without(asdict(setup), "slo")}
    return {
        "kind": "simulated",
        "commit": commit(),
        "seeds": list(seeds),
        "fleet": _without(fleet, "workers"),
        "setup": told,
        "rows": rows_of(raw),
        "raw": raw,
    }


def _runs(sizes, routers, seeds, setup: Setup, tick: Callable[[], None]) -> Iterator[dict]:
    for workers in sizes:
        starts: dict[str, float | None] = dict.fromkeys(routers)
        for seed in seeds:
            workload = setup.draw(workers, seed)
            for router in routers:
                one = Experiment(workload, Fleet(workers=workers), router, slo=setup.slo, seed=seed)
                window = counted(workload, setup.warmup_s)
                found = summarize(one.cluster().run(workload.requests), setup.slo, window)
                knee = knee_of_seed(one, workload, seed, setup.target, setup.warmup_s, starts[router])
                starts[router] = knee.rate_per_s or starts[router]
                yield {
                    "workers": workers,
                    "router": router,
                    "seed": seed,
                    "workload_sha256": workload.sha256,
                    "requests": found["requests"],
                    **{name: found[name] for name in FIGURES},
                    "knee_per_s": knee.rate_per_s,
                    "knee_attainment": knee.attainment,
                }
                tick()


def rows_of(raw: Sequence[dict]) -> list[dict]:
    """One row a size and router, with means and intervals over seeds, and paired differences to round robin.

    Rates are those of one worker. What a seed does not have (a knee below the search) is None.
    """
    groups: dict[tuple[int, str], dict[int, dict]] = {}
    for one in raw:
        groups.setdefault((one["workers"], one["router"]), {})[one["seed"]] = one
    rows = []
    for (workers, router), mine in groups.items():
        row: dict = {"workers": workers, "router": router}
        for name in (*FIGURES, "knee_per_s"):
            values = _values(mine, name, workers)
            row[name] = asdict(mean_interval(list(values.values()))) if values else None
        for name in PER_WORKER:
            values, other = (_values(of, name, workers) for of in (mine, groups[workers, REFERENCE]))
            row[f"{name}_difference"] = asdict(compare(values, other).difference) if values and other else None
        rows.append(row)
    return rows


def _values(of: dict[int, dict], name: str, workers: int) -> dict[int, float] | None:
    """A figure by seed, a rate over the workers; None unless every seed has it."""
    values = {seed: one[name] for seed, one in of.items()}
    if None in values.values():
        return None
    return {seed: value / workers for seed, value in values.items()} if name in PER_WORKER else values


def _without(record: dict, key: str) -> dict:
    return {name: value for name, value in record.items() if name != key}
