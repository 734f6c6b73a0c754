"""The fleets that the split calculator compares: co-located workers by chunk size, and every split of equal workers.

Each has a bound in closed form (`helpers.cost.split`), in requests/s and GPU: no queue is counted, and lengths are
those of the mean request. The best of each kind can then be simulated on a small draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp

from helpers.cost.iteration import CostModel
from helpers.cost.roofline import RooflineCost
from helpers.cost.service import prefill_s
from helpers.cost.split import Apart, Beside, Work, apart, link_of, together
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.hardware import GPU, gpu
from helpers.metrics.goodput import goodput
from helpers.models import Model, model
from helpers.serving.fleet import Fleet
from helpers.widgets.explorer import Record, Value
from helpers.widgets.explorers import simulated as shared
from helpers.widgets.explorers.hardware import hardware_of, step_times
from helpers.widgets.hardware import DEFAULT
from helpers.workload.slo import SLO

CHUNKS = (256, 512, 1024, 2048, 4096, 8192)
SPLIT_CHUNK = 2048  # of prefill workers, where a long step delays nobody's decode
WIDTHS = (1, 2, 4, 8)  # GPUs a worker: tensor parallelism within one NVLink domain
LEAST_KV_SHARE = 0.15  # of a GPU's memory, that a worker has to keep for KV
BLOCK_TOKENS = 64
A_WORKER, LEAST_REQUESTS = 50, 300  # requests of a small draw: a short one does not show a queue that grows
TEXTS, SIGMA = 8, 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fleet: a `split`, or None for workers that do both, with its chunks and its bound in requests/s and GPU."""

    split: str | None
    chunk_tokens: int
    bound: float

    @property
    def name(self) -> str:
        """The fleet in words."""
        return self.split or f"together, chunks of {self.chunk_tokens:,}"

    @property
    def label(self) -> str:
        """The fleet on an axis."""
        return self.split or f"chunk {self.chunk_tokens:,}"


@dataclass(frozen=True)
class Point:
    """Everything that the bounds depend on. `words` say where step times come from."""

    model: Model
    part: GPU
    cost: CostModel
    link: Link
    work: Work
    slo: SLO
    gpus: int
    tp: int
    kv_tokens: int
    words: str

    @property
    def workers(self) -> int:
        """Workers of `tp` GPUs each."""
        return self.gpus // self.tp

    @property
    def used(self) -> int:
        """GPUs in use: what is left over serves nothing."""
        return self.workers * self.tp

    @property
    def requests(self) -> int:
        """Requests of a small draw."""
        return max(LEAST_REQUESTS, A_WORKER * self.workers)

    def pools(self) -> Apart:
        """What a prefill and a decode worker carry; nothing where a prompt alone takes longer than the TTFT bound."""
        found = apart(
            self.cost,
            self.link,
            self.model,
            self.work,
            self.slo.tpot_s,
            SPLIT_CHUNK,
            self.kv_tokens,
        )
        alone_s = prefill_s(self.cost, self.work.prompt_tokens, SPLIT_CHUNK, self.work.cached_tokens)
        return found if alone_s <= self.slo.ttft_s else Apart(found.prefill_per_s, 0.0)

    def splits(self) -> list[Candidate]:
        """Every split, with its bound."""
        pools, n = self.pools(), self.workers
        return [Candidate(f"{p}P{n - p}D", SPLIT_CHUNK, pools.per_s(p, n - p) / self.used) for p in range(1, n)]

    def together(self, chunks: tuple[int, ...] = CHUNKS) -> list[Candidate]:
        """Workers that do both, with chunks of each size."""
        return [Candidate(None, chunk, self._together(chunk)) for chunk in chunks]

    def _together(self, chunk: int) -> float:
        work, bound_s = self.work, self.slo.tpot_s
        found = together(self.cost, work, bound_s, chunk, self.kv_tokens)
        batch = round(found.batch)
        beside = Beside(chunk, batch, round(batch * work.context_tokens))
        in_time = beside.prefill_s(self.cost, work.prompt_tokens, work.cached_tokens) <= self.slo.ttft_s
        return found.per_s / self.tp if in_time else 0.0

    def best(self, chunks: tuple[int, ...] = CHUNKS) -> tuple[Candidate, Candidate]:
        """The best of each kind: together, and apart; the first among equals."""
        return max(self.together(chunks), key=lambda one: one.bound), max(self.splits(), key=lambda one: one.bound)

    def rivals(self) -> list[Candidate]:
        """Who is worth a run: the chunk size with the best bound, the next smaller and the next larger one, and the
        best split. A bound is that of the mean request; what lengths about it do to a chunk size, only a run shows."""
        chunks, apart = self.together(), self.best()[1]
        best = chunks.index(max(chunks, key=lambda one: one.bound))
        return [*chunks[max(0, best - 1) : best + 2], apart]

    def at(self, prompt_tokens: int | None = None, tpot_s: float | None = None) -> "Point":
        """The same with another prompt, cached in the same share, or another TPOT bound."""
        work, slo = self.work, self.slo
        if prompt_tokens is not None:
            cached = round(work.cached_tokens / work.prompt_tokens * prompt_tokens)
            work = replace(work, prompt_tokens=prompt_tokens, cached_tokens=min(cached, prompt_tokens - 1))
        return replace(self, work=work, slo=slo if tpot_s is None else replace(slo, tpot_s=tpot_s))


def point_of(values: Mapping[str, Value], record: Record = None) -> Point:
    """The operating point that the controls ask for.

    Measured step times are those of Llama-3.1-8B on one GPU; every other model takes those of the data sheet. Raises
    `InputError` for a model that no worker holds, fewer than two workers, and a part without the link.
    """
    hardware, served = hardware_of(values["hardware"], record), model(values["model"])
    part = gpu(hardware.gpu or DEFAULT)
    tp = _width(served, part)
    if values["gpus"] // tp < 2:
        raise InputError(
            f"{served.name} needs {tp} {part.name} a worker, so that {values['gpus']} hold {values['gpus'] // tp}; "
            "give GPUs for two workers"
        )
    fitted = hardware.cost is not None and tp == 1 and served.key == shared.MODEL
    words = step_times(hardware) if fitted else f"step times predicted from the data sheet of {part.name}"
    cost = hardware.cost if fitted else RooflineCost(served, part, tp)
    prompt = values["prompt_tokens"]
    work = Work(prompt, values["output_tokens"], min(round(values["cached"] * prompt), prompt - 1))
    if prompt + values["output_tokens"] > served.max_context:
        raise InputError(f"{served.name} has a context of {served.max_context:,} tokens; give shorter prompts")
    link = link_of(part, values["link"])
    kv_tokens = Fleet(served.key, part.key, tp=tp).kv_blocks(BLOCK_TOKENS) * BLOCK_TOKENS
    slo = SLO(values["slo_ttft_s"], values["slo_tpot_ms"] / 1e3)
    wide = replace(link, bytes_per_s=tp * link.bytes_per_s)
    return Point(served, part, cost, wide, work, slo, values["gpus"], tp, kv_tokens, words)


def _width(served: Model, part: GPU) -> int:
    """The fewest GPUs that hold the weights and leave some memory for KV."""
    for tp in WIDTHS:
        if served.weight_bytes() / tp <= (0.9 - LEAST_KV_SHARE) * part.memory_bytes:
            return tp
    raise InputError(f"{served.name} does not fit on {WIDTHS[-1]} {part.name} in bf16; choose a smaller model")


def attainment(point: Point, candidate: Candidate, per_s: float) -> float:
    """The share of a small draw at `per_s` requests/s that meets the SLO, simulated from an empty fleet.

    Prompts and answers are lognormal about the means asked for; the cached share is one of `TEXTS` texts.
    """
    fleet = Fleet(
        point.model.key,
        point.part.key,
        point.workers,
        candidate.split,
        point.tp,
        candidate.chunk_tokens,
        link=point.link,
        cost=point.cost,
    )
    return _met(
        _draw(point.work, per_s, point.requests),
        fleet,
        "prefix_exact" if point.work.cached_tokens else "least_tokens",
        point.slo,
    )


@lru_cache(maxsize=16)
def _met(draw: shared.Draw, fleet: Fleet, router: str, slo: SLO) -> float:
    return goodput(shared.simulate(draw, fleet, router), slo).attainment


def _draw(work: Work, per_s: float, requests: int) -> shared.Draw:
    mean = exp(SIGMA**2 / 2)  # of a lognormal length whose median is 1

    def length(tokens: int) -> str:
        return f"lognormal:{max(1, round(tokens / mean))}:{SIGMA}"

    if work.cached_tokens:
        texts = {"system_tokens": 0, "tenants": 1, "tenant_tokens": "0", "documents": TEXTS, "skew": 0.0}
        lengths = {"document_tokens": str(work.cached_tokens), "question_tokens": length(work.uncached_tokens)}
        knobs = texts | lengths | {"output_tokens": length(work.output_tokens)}
        return shared.Draw("documents", tuple(knobs.items()), per_s, 1.0, requests, 0, BLOCK_TOKENS)
    knobs = {"prompt_tokens": length(work.prompt_tokens), "output_tokens": length(work.output_tokens)}
    return shared.Draw("poisson", tuple(knobs.items()), per_s, 1.0, requests, 0, BLOCK_TOKENS)
