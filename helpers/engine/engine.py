"""The engine: requests in, tokens out, one step at a time.

A step is: schedule, launch, commit, read. The plain loop reads what it has just launched. The
overlapped loop launches first and then reads the step before, so that the host schedules step n + 1
while the device runs step n: nothing in scheduling needs the value of a token, only how many there
are. The price is one wasted row when a stop token ends a request: it is seen a step late.
"""

import gc
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from time import perf_counter

import torch

from helpers.cost.samples import StepSample
from helpers.engine.generation import Generation, Token, request_of, synthetic_tokens
from helpers.engine.pages import KVPages, blocks_in, kv_bytes_for, physical_page_tokens
from helpers.engine.runner import Launched, Runner
from helpers.engine.sampling import NOT_FINITE, Sampling
from helpers.errors import InputError
from helpers.metrics.timeline import StepLog
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Scheduler, Step
from helpers.workload.request import Request


class EngineError(RuntimeError):
    """A step failed; its message says why. The requests in it are lost, the engine can be used again."""


@dataclass(slots=True)
class Flight:
    """A step that was launched: what must be known when its tokens are read."""

    step: Step
    launched: Launched
    sample: tuple  # a StepSample without its seconds
    completing: list[tuple[Generation, int]]  # prefills that end in this step, and which token is theirs
    launched_s: float


class Engine:
    """Serves a `Decoder` (see `helpers.engine.load.load`) on its device within `limits`.

    `overlap` None: the overlapped loop on a GPU, the plain one on a CPU. `graphs` as in `Runner`. `log` and
    `samples` record every step; `record=False` keeps neither. Times are seconds since `restart_clock`.
    """

    def __init__(
        self,
        decoder,
        limits: Limits,
        *,
        max_context: int | None = None,
        page_tokens: int = 64,
        overlap: bool | None = None,
        graphs: bool | None = None,
        record: bool = True,
    ) -> None:
        self.decoder, self.config, self.limits = decoder, decoder.config, limits
        self.device = torch.device(decoder.device)
        self.max_context = min(max_context or self.config.max_context, self.config.max_context)
        self.overlap = self.device.type == "cuda" if overlap is None else overlap
        self.record = record
        size = physical_page_tokens(limits.block_tokens, page_tokens)
        count = limits.kv_blocks * (limits.block_tokens // size)
        try:
            self.pages = KVPages(self.config, count, size, self.device, decoder.dtype)
        except torch.OutOfMemoryError as error:
            raise InputError(f"{count} pages of KV do not fit on {self.device}; give fewer kv_blocks") from error
        self.runner = Runner(decoder, self.pages, limits, self.max_context, graphs)
        self.scheduler = Scheduler(limits)
        self.live: dict[int, Generation] = {}  # submitted and not over
        self.log, self.samples = StepLog(), []
        self._flight: Flight | None = None
        self._number = 0
        self.restart_clock()

    # -- requests

    def restart_clock(self) -> None:
        """From now on times count from now, and the step log is empty."""
        self._origin_s = perf_counter()
        self._last_s = 0.0
        self.log, self.samples = StepLog(), []

    def now(self) -> float:
        """Seconds since the clock was restarted."""
        return perf_counter() - self._origin_s

    def submit(
        self,
        request: Request,
        prompt: Seq[int] | None = None,
        sampling: Sampling | None = None,
        stop: frozenset[int] = frozenset(),
    ) -> Generation:
        """Queue a request. Without `prompt` its tokens are synthetic, drawn from its block hashes.

        A token of `stop` ends it early. Raises `InputError` for a request that can never be served.
        """
        g = self._generation(request, prompt, sampling, stop)
        self.scheduler.add(g)
        self.live[g.number] = g
        return g

    def adopt(self, request: Request, prompt: Seq[int] | None = None, computed: int | None = None) -> Generation:
        """Begin a request whose first `computed` prompt tokens (None: all, and token 0 was the first to come out)
        are taken to be in its pages already: what a hand-off from another worker brings, or a benchmark pretends."""
        g = self._generation(request, prompt, None, frozenset())
        g.computed = g.prompt
        if not self.scheduler.has_room(g):
            raise InputError(f"request {request.id}: no room for its {g.prompt} tokens of KV beside the running ones")
        self.scheduler.reserve(g)
        self.scheduler.join(g)
        self.live[g.number] = g
        if computed is None:
            g.generated, g.first_token_s = 1, self.now()
            g.out.append(0)
        else:
            g.computed = computed
        return g

    def _generation(self, request: Request, prompt: Seq[int] | None, sampling, stop) -> Generation:
        self._check_open()
        if prompt is None:
            prompt = synthetic_tokens(request, self.limits.block_tokens, self.config.vocab)
        total = request.prompt_tokens + request.output_tokens
        if not request.prompt_tokens or request.output_tokens < 1 or len(prompt) != request.prompt_tokens:
            raise InputError(f"request {request.id}: {len(prompt)} tokens in, {request.output_tokens} out; give some")
        if total > self.max_context:
            raise InputError(f"request {request.id}: {total} tokens are beyond the context of {self.max_context}")
        if not 0 <= min(prompt) <= max(prompt) < self.config.vocab:
            raise InputError(f"request {request.id}: a token is outside the vocabulary of {self.config.vocab}")
        g = Generation(request, self._number, request.arrival_s, prompt, sampling or Sampling(), stop)
        if not self.scheduler.fits(g):
            room = self.limits.kv_blocks * self.limits.block_tokens
            raise InputError(f"request {request.id}: its {total - 1} tokens of KV do not fit in the pool of {room}")
        self._number += 1
        return g

    def cancel(self, g: Generation) -> None:
        """Stop a request, between steps; its blocks are free at once."""
        self.scheduler.cancel(g)
        self.runner.leave(g)
        self.live.pop(g.number, None)
        g.ended = True

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._flight or self.scheduler.running or self.scheduler.waiting)

    def stream(self) -> Iterator[Token]:
        """The tokens of everything that was submitted, as they come out."""
        while self.busy:
            yield from self.step()

    def generate(self, prompt: Seq[int], output_tokens: int, sampling: Sampling | None = None, stop=frozenset()):
        """The tokens [≤ output_tokens] that follow one prompt."""
        request = request_of(self._number, prompt, output_tokens, self.limits.block_tokens, self.now())
        g = self.submit(request, prompt, sampling, frozenset(stop))
        while not g.ended:
            self.step()
        return g.out

    # -- steps

    def step(self) -> list[Token]:
        """Run a step and return the tokens that came out: its own, or in the overlapped loop those of the step before.

        Raises `EngineError` when the device fails or logits are no numbers. After that, and after an
        interrupt, every request in the engine is lost and its memory free; the engine can be used again.
        """
        self._check_open()
        try:
            launched = self._launch()
            if self.overlap:
                launched, self._flight = self._flight, launched
            return self._read(launched) if launched else []
        except BaseException as error:
            self.abandon(f"{type(error).__name__}: {error}")
            if isinstance(error, torch.OutOfMemoryError | MemoryError):
                raise EngineError(
                    f"out of memory in a step of up to {self.limits.token_budget} tokens; "
                    "lower token_budget, or give KV less memory"
                ) from error
            raise

    def _launch(self) -> Flight | None:
        step = self.scheduler.schedule()
        self.scheduler.pool.evicted.clear()
        for g in step.preempted:
            self.runner.leave(g)
        if not step:
            return None
        sample = (tuple((n, g.computed) for g, n in step.chunks), len(step.decode), step.kv_tokens())
        completing = [(g, len(step.decode) + i) for i, (g, n) in enumerate(step.chunks) if g.computed + n == g.goal]
        flight = Flight(step, None, sample, completing, self.now())
        flight.launched = self.runner.launch(step)
        for g in self.scheduler.commit(step).finished:
            self.runner.leave(g)
        return flight

    def _read(self, flight: Flight) -> list[Token]:
        tokens = flight.launched.read()
        end_s = self.now()
        if min(tokens) == NOT_FINITE:
            sequences = [*flight.step.decode, *(g for g, _ in flight.step.chunks)]
            wrong = [g.request.id for g, token in zip(sequences, tokens, strict=True) if token == NOT_FINITE]
            raise EngineError(f"the logits of requests {wrong} are not finite; the weights or the KV are damaged")
        start_s = max(flight.launched_s, self._last_s)
        self._last_s = end_s
        row, out = len(self.log), []
        firsts = 0
        for g, token in self._due(flight, tokens):
            if g.first_token_s is None:
                g.first_token_s = end_s
                firsts += 1
            else:
                if g.last_row != row - 1:
                    g.open_span(row)
                g.last_row = row
            g.out.append(token)
            last = len(g.out) == g.output or token in g.stop
            if last:
                self._finish(g, end_s)
            out.append(Token(g.request.id, token, len(g.out) - 1, end_s, last))
        for g, _ in flight.step.chunks:
            if g.prefill_start_s is None:
                g.prefill_start_s = start_s
        self._note(flight, start_s, end_s, len(out) - firsts)
        return out

    @staticmethod
    def _due(flight: Flight, tokens: list[int]) -> Iterator[tuple[Generation, int]]:
        """Who gets which token: every decode and every prefill that has ended, but those that are over."""
        for g, token in zip(flight.step.decode, tokens, strict=False):
            if not g.ended:
                yield g, token
        for g, index in flight.completing:
            if not g.ended:
                yield g, tokens[index]

    def _finish(self, g: Generation, now_s: float) -> None:
        self.cancel(g)  # a stop token ends it before the scheduler thought so; else nothing is left to do there
        g.close_span()
        g.output = g.generated = len(g.out)
        g.finished_s, g.status = now_s, "finished"

    def _note(self, flight: Flight, start_s: float, end_s: float, further: int) -> None:
        chunks, decodes, kv_tokens = flight.sample
        self.log.append(start_s, 1, end_s - start_s, 0.0, further, sum(n for n, _ in chunks))
        if self.record:
            self.samples.append(StepSample(chunks, decodes, kv_tokens, end_s - start_s))

    # -- when things go wrong, and the end

    def abandon(self, reason: str) -> None:
        """Drop every request and all KV, with a reason. The engine is as new, unless the device itself is lost."""
        self._flight = None
        self.scheduler.drain()
        for g in self.live.values():
            self.runner.leave(g)
            g.close_span()
            g.ended, g.status, g.reason = True, "unfinished", reason
        self.live.clear()
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
                torch.cuda.empty_cache()
            self.pages.clear()
        except RuntimeError:  # the device is gone: nothing more can run in this process
            self.close()

    def close(self) -> None:
        """Give back the memory; the engine cannot be used afterwards."""
        self.pages = self.runner = self.decoder = self._flight = None
        self.live.clear()
        gc.collect()  # a captured step and its runner know each other
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _check_open(self) -> None:
        if self.decoder is None:
            raise EngineError("the engine is closed; make a new one")

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def limits_for(
    decoder, block_tokens: int = 64, token_budget: int = 2048, max_batch: int = 64, kv_gib: float | None = None
) -> Limits:
    """Limits with as many blocks as memory has room for now, or as `kv_gib` holds."""
    kv_bytes = kv_gib * 2**30 if kv_gib else kv_bytes_for(decoder.config, torch.device(decoder.device), token_budget)
    blocks = blocks_in(kv_bytes, decoder.config, decoder.dtype, block_tokens)
    return Limits(blocks, block_tokens, token_budget, max_batch)
