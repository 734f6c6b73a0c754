"""Mooncake FAST'25, figure 5, simulated: four ways to choose the prefill worker, on the conversation hour.

Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST'25, read in the authors' release
(kvcache-ai/Mooncake, FAST25-release, at commit 3b5a5941). What the paper states: 16 nodes of eight A800
(section 4.2), a node being one prefill or one decode instance, 4 x 200 Gbit/s of network that carry 87 GB/s
(5.1, 5.4.1), a model of Llama-3-70B's shape, the trace sent at its own timestamps (5.2.1), about 3 million tokens
of cache in a node's 1 TB of DRAM (5.3.1). What it does not state for figure 5: how many of the nodes prefill,
how much of the DRAM was used, the balancing threshold, and what "lightest load" counts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from helpers.checkout import commit
from helpers.cost.roofline import Efficiency
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.metrics.latency import defined, ttft_s
from helpers.metrics.stability import stability
from helpers.models import model
from helpers.policies.view import KVEvicted, KVStored, Router
from helpers.policies.zoo.mooncake import Mooncake
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.workload.generate import open_workload
from helpers.workload.hygiene import find_ticks, spread_ticks
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

MODEL, HARDWARE, TP = "llama-3.1-70b", "a800", 8

# Figure 5: mean TTFT in seconds.
PAPER_TTFT_S = {"random": 19.65, "least load": 5.27, "local": 3.58, "global": 3.07}
# Figure 14a, prompt tokens -> seconds of prefill without a cached prefix. Read from the bars of the PDF's vector
# drawing against the ticks of its axis; the drawing is exact, the labels 8k ... 128k are taken as powers of two.
PAPER_PREFILL_S = {8_192: 1.002, 16_384: 2.056, 32_768: 4.479, 65_536: 10.587, 131_072: 27.512}
# Figures 8 and 10, read the same way: mean prefill seconds of a request of the conversation trace without a prefix
# cache (vLLM) and with the global one, and the share of prompt tokens found in a cache, on ten prefill nodes.
PAPER_MEAN_PREFILL_S = {"no cache": 1.661, "global": 1.062}
PAPER_HIT = {"local": 0.169, "global": 0.375}

# The two efficiencies that put the roofline on figure 14a, within 2 % at each of its five points.
CALIBRATED = Efficiency(matmul=0.64, attention=0.74)

# Arm -> router and its parameters.
ARMS = {
    "random": ("random", {}),
    "least load": ("least_requests", {}),
    "local": ("mooncake", {"fetch": False}),
    "global": ("mooncake", {"fetch": True}),
}
# The study has one more arm, which takes `local` apart into the queue that it predicts and the cache that it knows.
QUEUE_ONLY = "queue only"
STUDY_ARMS = ("random", "least load", QUEUE_ONLY, "local", "global")


class QueueOnly(Mooncake):
    """The Conductor without any news of the caches: it predicts queues and prefills as if nothing were cached."""

    name = QUEUE_ONLY
    observes = Mooncake.observes - {KVStored, KVEvicted}


@dataclass(frozen=True)
class Setup:
    """One configuration of the experiment; the defaults are the paper's where it states them.

    `prefill` and `decode` are workers of one node each. Six of the 16 nodes is the split at which
    random comes near the paper's 19.65 s with the trace as recorded. `kv_tokens` is the cache of a
    worker. `spread` draws the arrivals of each 3-second tick uniformly over it (a seed for each run).
    """

    prefill: int = 6
    decode: int = 10
    kv_tokens: int = 3_000_000
    link_bytes_per_s: float = 87e9
    link_latency_s: float = 1e-3
    efficiency: Efficiency = CALIBRATED
    chunk_tokens: int = 2048
    balancing_threshold: float = 1.0
    least_load: str = "least_requests"
    rate_scale: float = 1.0
    spread: bool = False

    def __post_init__(self) -> None:
        if self.kv_tokens < 1:
            raise InputError(f"the cache of a worker is {self.kv_tokens} tokens; give 1 or more")

    def fleet(self) -> Fleet:
        """The nodes; raises `InputError` for what does not fit together."""
        return Fleet(
            model=MODEL,
            hardware=HARDWARE,
            workers=self.prefill + self.decode,
            split=f"{self.prefill}P{self.decode}D",
            tp=TP,
            chunk_tokens=self.chunk_tokens,
            kv_gib=self.kv_tokens * model(MODEL).kv_bytes_per_token() / 2**30,
            link=Link(self.link_latency_s, self.link_bytes_per_s),
            efficiency=self.efficiency,
        )

    def workload(self, recorded: Workload, seed: int) -> Workload:
        """The trace as this configuration sends it."""
        sent = spread_ticks(recorded, seed) if self.spread else recorded
        return sent if self.rate_scale == 1 else sent.at_rate(self.rate_scale)

    def experiment(self, recorded: Workload, arm: str, seed: int) -> Experiment:
        """The run of one arm with one seed; raises `InputError` for an unknown arm."""
        if arm not in STUDY_ARMS:
            raise InputError(f"arm {arm!r} is unknown; use one of {', '.join(STUDY_ARMS)}")
        name, parameters = ARMS.get(arm, (self._queue_only(recorded.block_tokens), {}))
        if arm == "least load":
            name = self.least_load
        elif arm == "global":
            parameters = {**parameters, "balancing_threshold": self.balancing_threshold}
        slo = SLO(ttft_s=30.0, tpot_s=0.1)  # section 5.1; no number of this comparison depends on it
        workload = self.workload(recorded, seed)
        return Experiment(workload, self.fleet(), name, slo=slo, seed=seed, router_parameters=parameters)

    def _queue_only(self, block_tokens: int) -> Callable[[int], Router]:
        predictor = self.fleet().predictor()
        return lambda workers: QueueOnly(predictor, block_tokens, fetch=False, promise=False)


# (what is varied, label, configuration); each is compared with the first.
VARIANTS = (
    ("base", "as recorded", Setup()),
    ("arrivals", "ticks spread", Setup(spread=True)),
    ("load", "0.9 x rate", Setup(rate_scale=0.9)),
    ("load", "1.03 x rate", Setup(rate_scale=1.03)),
    ("split", "5P11D", Setup(5, 11)),
    ("split", "8P8D", Setup(8, 8)),
    ("split", "8P8D, 1.35 x rate", Setup(8, 8, rate_scale=1.35)),
    ("cache", "0.5 M tokens", Setup(kv_tokens=500_000)),
    ("cache", "1 M tokens", Setup(kv_tokens=1_000_000)),
    ("cache", "30 M tokens", Setup(kv_tokens=30_000_000)),
    ("links", "12.5 GB/s", Setup(link_bytes_per_s=12.5e9)),
    ("links", "6 GB/s", Setup(link_bytes_per_s=6e9)),
    ("links", "3 GB/s", Setup(link_bytes_per_s=3e9)),
    ("efficiency", "matmul 0.60, attention 0.40", Setup(efficiency=Efficiency())),
    ("efficiency", "matmul 0.70, attention 0.80", Setup(efficiency=Efficiency(matmul=0.70, attention=0.80))),
    ("chunk", "8192 tokens", Setup(chunk_tokens=8192)),
    ("least load", "by waiting tokens", Setup(least_load="least_tokens")),
    ("threshold", "4", Setup(balancing_threshold=4.0)),
    ("matched", "0.5 M tokens, 0.95 x rate", Setup(kv_tokens=500_000, rate_scale=0.95)),
)


def run(
    recorded: Workload,
    setup: Setup = VARIANTS[0][2],
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = tuple(ARMS),
    tick: Callable[[], None] | None = None,
) -> list[dict]:
    """One row for each arm: mean TTFT over requests by seed, its mean and range, ratio to the last arm, hit share.

    The ratio is None when a run of either arm is past its knee, as TTFT then measures the length of
    the run. On the recorded trace a seed moves the dice of `random` alone. `hit_share` is the share of
    prompt tokens taken from a cache, `fetched_share` the part of it that came from another worker.
    """
    if not seeds:
        raise InputError("no seeds make no run; give 1 or more")
    rows = []
    for arm in arms:
        made = []
        for seed in seeds:
            made.append(measured(setup.experiment(recorded, arm, seed).run()))
            if tick:
                tick()
        means = [one["ttft_s"] for one in made]
        rows.append(
            {
                "arm": arm,
                "ttft_s": fmean(means),
                "ttft_s_by_seed": means,
                "low_s": min(means),
                "high_s": max(means),
                "hit_share": fmean(one["hit_share"] for one in made),
                "fetched_share": fmean(one["fetched_share"] for one in made),
                "stable": all(one["stable"] is True for one in made),
                "rejected": sum(one["rejected"] for one in made),
                "paper_ttft_s": PAPER_TTFT_S.get(arm),
            }
        )
    last = rows[-1]
    for row in rows:
        row["ratio"] = row["ttft_s"] / last["ttft_s"] if row["stable"] and last["stable"] else None
        row["paper_ratio"] = row["paper_ttft_s"] / last["paper_ttft_s"] if row["paper_ttft_s"] else None
    return rows


def measured(run: Run) -> dict:
    """What the comparison needs of one run; raises `InputError` when no request got a first token."""
    timelines = run.timelines
    ttfts = defined(ttft_s, timelines)
    if not ttfts:
        raise InputError("no request got a first token: the caches are too small for every prompt; give more kv_tokens")
    prompts = sum(t.prompt_tokens for t in timelines)
    fetched = sum(t.fetched_tokens for t in timelines)
    return {
        "ttft_s": fmean(ttfts),
        "hit_share": (sum(t.cached_tokens for t in timelines) + fetched) / prompts,
        "fetched_share": fetched / prompts,
        "stable": stability(run.log).stable,
        "rejected": sum(t.status == "rejected" for t in timelines),
    }


def checks(recorded: Workload) -> dict:
    """What the calibration and the cache say of figures that they were not fitted to.

    The mean prefill seconds of the trace's prompts computed alone, without a cache and with one that
    forgets nothing (figure 8), and the shares found in the caches of ten prefill nodes with outputs of
    one token (figure 10, left).
    """
    predictor = Setup().fleet().predictor()
    alone, cached = prefill_means(recorded, CALIBRATED)
    one_token = replace(recorded, requests=tuple(replace(r, output_tokens=1) for r in recorded))
    hits = {}
    for tokens in (500_000, 3_000_000):
        setup = Setup(10, 6, kv_tokens=tokens)
        found = {arm: measured(setup.experiment(one_token, arm, 0).run())["hit_share"] for arm in ("local", "global")}
        hits[str(tokens)] = found
    return {
        "prefill_s": {str(n): [predictor.prefill_s(n), paper] for n, paper in PAPER_PREFILL_S.items()},
        "mean_prefill_s": {"no cache": alone, "infinite cache": cached},
        "paper_mean_prefill_s": PAPER_MEAN_PREFILL_S,
        "hit_share_10_prefill": hits,
        "paper_hit_share": PAPER_HIT,
    }


def prefill_means(workload: Workload, efficiency: Efficiency) -> tuple[float, float]:
    """Mean seconds to prefill a prompt alone: without a prefix cache, and with one that forgets nothing."""
    prefill_s = Setup(efficiency=efficiency).fleet().predictor().prefill_s
    alone = fmean(prefill_s(r.prompt_tokens) for r in workload)
    return alone, fmean(prefill_s(r.prompt_tokens, tokens) for r, tokens in _infinite_cache(workload))


def _infinite_cache(workload: Workload) -> Iterator[tuple]:
    """Each request with the prompt tokens that a cache of everything before it holds."""
    seen: set[int] = set()
    for r in workload:
        depth = 0
        for block in r.prefix_blocks[: (r.prompt_tokens - 1) // workload.block_tokens]:
            if block not in seen:
                break
            depth += 1
        seen.update(r.prefix_blocks[: r.prompt_tokens // workload.block_tokens])
        yield r, depth * workload.block_tokens


def runs(seeds: int, study: bool) -> int:
    """How many simulations `mooncake_fig5` makes, what a progress bar counts to; fewer of a trace without ticks."""
    return len(_arms(study)) * sum(_seeds_of(group, seeds) for group, _, _ in _variants(study))


def _variants(study: bool) -> tuple:
    return VARIANTS if study else VARIANTS[:2]


def _arms(study: bool) -> tuple[str, ...]:
    return STUDY_ARMS if study else tuple(ARMS)


def _seeds_of(group: str, seeds: int) -> int:
    return seeds if group in ("base", "arrivals", "matched") else 1


def mooncake_fig5(
    trace: Path | str,
    seeds: int = 3,
    study: bool = False,
    max_requests: int | None = None,
    tick: Callable[[], None] | None = None,
) -> dict:
    """The four arms on a trace, as recorded and with its ticks spread; with `study` five, under every variant.

    Seeds 0 to `seeds` - 1; the sensitivity runs take seed 0 alone. A simulation of the real hour takes
    1 to 2 seconds: half a minute in all, three with `study`. Raises `InputError` for a bad trace or no seeds.
    """
    if seeds < 1:
        raise InputError(f"{seeds} seeds make no run; give 1 or more")
    recorded, _ = open_workload(trace, max_requests=max_requests)
    if not any(r.prefix_blocks for r in recorded):
        raise InputError(f"{recorded.name} says nothing of shared prefixes; use a Mooncake trace")
    tick_s = find_ticks([r.arrival_s for r in recorded]).tick_s
    rows = []
    for group, label, setup in _variants(study):
        if setup.spread and tick_s is None:
            continue  # nothing to spread
        found = run(recorded, setup, range(_seeds_of(group, seeds)), _arms(study), tick)
        rows += [{"varied": group, "label": label, **row} for row in found]
    return {
        "bench": "mooncake-fig5",
        "kind": "simulated",
        "workload": recorded.name,
        "workload_sha256": recorded.sha256,
        "requests": len(recorded),
        "tick_s": tick_s,
        "seeds": list(range(seeds)),
        "commit": commit(),
        "setup": {**asdict(VARIANTS[0][2]), "model": MODEL, "hardware": HARDWARE, "tp": TP},
        "rows": rows,
        "checks": checks(recorded) if study else None,
    }
