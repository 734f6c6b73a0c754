"""Two roles on one device, and their rival there: one engine with the memory of both, prefills cut into chunks.

Both serve in this process, with the weights of one decoder. Of what is measured nothing speaks of two devices: on a
GPU the roles share its processors and its memory, on a CPU they take turns on one core.
"""

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter

from helpers.metrics.timeline import EventLog
from helpers.serving.engine_backend import EngineOptions, measure, warm_requests
from helpers.serving.experiment import Experiment
from helpers.simulator.cluster import no_collection
from helpers.workload.request import Workload

WHERE = {
    "cpu": "two roles sharing one device: they take turns on one core, a step each",
    "cuda": "two roles sharing one device: one GPU, a stream for each role and one for KV",
}


@dataclass(frozen=True)
class SharedRun:
    """A run on one device: its log, the tokens of each request by id, and what moved (None where nothing could)."""

    log: EventLog
    tokens: dict[int, list[int]]
    wall_s: float
    startup_s: float
    moved_bytes: int | None = None
    checked: int = 0
    wrong: int = 0


@dataclass(frozen=True)
class Size:
    """What serves on the device: a model, and the limits and the KV memory of each of the two roles."""

    model: str
    device: str
    block_tokens: int
    chunk_tokens: int
    max_batch: int
    kv_gib: float
    dtype: str | None = None


class OneDeviceCrew:
    """The engines on one device, each made when it is first asked for; close it at the end.

    `startup_s` is what that took, which is no part of any run.
    """

    def __init__(self, size: Size) -> None:
        self.size, self.startup_s, self.used = size, 0.0, False
        self._open, self._made, self._decoder = ExitStack(), {}, None

    def split(self, mover: str, workload: Workload, limit_s: float, **told: object) -> SharedRun:
        """Serve a workload by a prefill and a decode role; `told` are fields of `helpers.cluster.orders.Part`."""
        from helpers.cluster.one_device import OneDevice

        duet = self._engine("duet")
        duet.begin(mover, warm_requests(duet.engines[0]), **told)
        client = OneDevice(duet, workload.requests)
        gc.collect()
        with no_collection():  # its pauses are none of the steps
            log = client.run(limit_s)
        books = client.books
        moved = (books.moved_bytes, books.checked, books.wrong)
        return SharedRun(log, books.tokens, log.end_s, self.startup_s, *moved)

    def together(self, experiment: Experiment, limit_s: float, chunk_tokens: int | None = None) -> SharedRun:
        """Serve the workload of an experiment by one engine, with other chunks where they are given."""
        engine = self._engine("together", chunk_tokens or self.size.chunk_tokens)
        engine.abandon("a new run begins with an empty cache")
        options = EngineOptions(model=self.size.model, device=self.size.device, limit_s=limit_s)
        with noted(engine) as tokens:
            run = measure(experiment, engine, experiment.workload, options)
        return SharedRun(run.log, tokens, run.wall_s, self.startup_s)

    def close(self) -> None:
        """Give back what the engines hold."""
        self._made.clear()
        self._open.close()
        self._decoder = None

    def _engine(self, kind: str, chunk_tokens: int = 0):
        if (kind, chunk_tokens) not in self._made:
            start_s = perf_counter()
            made = self._duet() if kind == "duet" else self._alone(chunk_tokens)
            self._made[kind, chunk_tokens] = self._open.enter_context(made)
            self.startup_s += perf_counter() - start_s
        return self._made[kind, chunk_tokens]

    def _limits(self, roles: int, chunk_tokens: int):
        """Those of one role, or of an engine with the memory of two; loads the weights at the first use."""
        from helpers.engine.engine import limits_for
        from helpers.engine.load import load, use_threads

        size = self.size
        if self._decoder is None:
            self._decoder = load(size.model, size.device, size.dtype)
            use_threads(self._decoder)
        return limits_for(self._decoder, size.block_tokens, chunk_tokens, size.max_batch, roles * size.kv_gib)

    def _duet(self):
        from helpers.cluster.duet import duet

        limits = self._limits(1, self.size.chunk_tokens)
        return duet(self._decoder, limits)

    def _alone(self, chunk_tokens: int):
        from helpers.engine.engine import Engine

        limits = self._limits(2, chunk_tokens)
        return Engine(self._decoder, limits)


@contextmanager
def noted(engine) -> Iterator[dict[int, list[int]]]:
    """The tokens of each request that the engine is given meanwhile, by its id."""
    tokens: dict[int, list[int]] = {}
    submit = engine.submit

    def noting(request, *values, **how):
        g = submit(request, *values, **how)
        tokens[request.id] = g.out
        return g

    engine.submit = noting
    try:
        yield tokens
    finally:
        del engine.submit  # the method of the class is there again
