"""The engine: requests in, tokens out, one step at a time.

A step is: schedule, launch, commit, read. The plain loop reads what it has just launched. The
overlapped loop launches first and then reads the step before, so that the host schedules step n + 1
while the device runs step n: nothing in scheduling needs the value of a token, only how many there
are. Tokens that are there already are read first, so that none waits for a launch. The price is one
wasted row when a stop token ends a request: it is seen a step late. And what is launched early is
scheduled early: a request that comes in the meantime waits a step longer. `slack_s` says how long a
launch can wait for it.
"""

import gc
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from time import perf_counter

import numpy as np
import torch

from helpers.cost.samples import StepSample
from helpers.engine.device_clock import CudaClock, DeviceClock, HostClock
from helpers.engine.flight import Flight, Pace
from helpers.engine.generation import Generation, Token, request_of, synthetic_tokens
from helpers.engine.pages import KVPages, blocks_in, kv_bytes_for, physical_page_tokens
from helpers.engine.runner import Runner
from helpers.engine.sampling import NOT_FINITE, Sampling
from helpers.errors import InputError
from helpers.metrics.timeline import StepLog
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Scheduler
from helpers.workload.request import Request


class EngineError(RuntimeError):
    """A step failed; its message says why. The requests in it are lost, the engine can be used again."""


class Engine:
    """Serves a `Decoder` (see `helpers.engine.load.load`) on its device within `limits`.

    `overlap` None: the overlapped loop on a GPU, the plain one on a CPU. `graphs` as in `Runner`. `log` has each step
    by when its tokens came out, `samples` by what the device took; `record=False` keeps neither. Times are seconds
    since `restart_clock`. KV has the model's type unless `kv_dtype` says otherwise (torch.float8_e4m3fn: half of it).
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
        kv_dtype: torch.dtype | None = None,
        kv_scale: float = 1.0,
        clock: Callable[[], float] = perf_counter,
        device_clock: DeviceClock | None = None,
    ) -> None:
        self.decoder, self.config, self.limits = decoder, decoder.config, limits
        self.device = torch.device(decoder.device)
        self.max_context = min(max_context or self.config.max_context, self.config.max_context)
        self.overlap = self.device.type == "cuda" if overlap is None else overlap
        self.record, self._clock = record, clock
        size = physical_page_tokens(limits.block_tokens, page_tokens)
        count = limits.kv_blocks * (limits.block_tokens // size)
        try:
            self.pages = KVPages(self.config, count, size, self.device, kv_dtype or decoder.dtype, scale=kv_scale)
        except torch.OutOfMemoryError as error:
            raise InputError(f"{count} pages of KV do not fit on {self.device}; give fewer kv_blocks") from error
        self._device_clock = device_clock or (CudaClock() if self.device.type == "cuda" else HostClock(clock))
        self.runner = Runner(decoder, self.pages, limits, self.max_context, self._device_clock, graphs)
        self.scheduler = Scheduler(limits)
        self.live: dict[int, Generation] = {}  # submitted and not over
        self.log, self.samples = StepLog(), []
        self._stopping: set[int] = set()  # live requests that a token can end
        self._flight: Flight | None = None
        self._before: object | None = None  # where the device ended its last step, while it had more to do
        self._pace = Pace()
        self._number = 0
        self.restart_clock()

    # -- requests

    def restart_clock(self) -> None:
        """From now on times count from now, and the step log is empty. Only while nothing is under way."""
        if self._flight:
            raise EngineError("a step is under way; run the engine until it is idle before its clock is restarted")
        self._origin_s = self._clock()
        self.last_s = 0.0
        self._launched = self._read_rows = 0  # steps, which are rows of the log; the first counts those under way too
        self.log, self.samples = StepLog(), []

    def now(self) -> float:
        """Seconds since the clock was restarted."""
        return self._clock() - self._origin_s

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
        if g.stop:
            self._stopping.add(g.number)
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
            g.row = self._launched
        else:
            g.computed = computed
        return g

    def _generation(self, request: Request, prompt: Seq[int] | None, sampling, stop) -> Generation:
        self._check_open()
        name, total = f"request {request.id}", request.prompt_tokens + request.output_tokens
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise InputError(f"{name}: {request.prompt_tokens} tokens in, {request.output_tokens} out; give 1 or more")
        if total > self.max_context:
            raise InputError(f"{name}: {total} tokens are beyond the context of {self.max_context}")
        if prompt is None:
            prompt = synthetic_tokens(request, self.limits.block_tokens, self.config.vocab)
        if len(prompt) != request.prompt_tokens:
            raise InputError(f"{name}: {len(prompt)} tokens were given for a prompt of {request.prompt_tokens}")
        prompt = np.asarray(prompt, np.int64)
        if not 0 <= prompt.min() <= prompt.max() < self.config.vocab:
            raise InputError(f"{name}: a token is outside the vocabulary of {self.config.vocab}")
        g = Generation(request, self._number, request.arrival_s, prompt, sampling or Sampling(), stop)
        if not self.scheduler.fits(g):
            room = self.limits.kv_blocks * self.limits.block_tokens
            raise InputError(f"{name}: its {total - 1} tokens of KV do not fit in the pool of {room}")
        self._number += 1
        return g

    def cancel(self, g: Generation) -> None:
        """Stop a request, between steps; its blocks are free at once."""
        g.close_span(self._read_rows - 1)
        self.scheduler.cancel(g)
        self.runner.leave(g)
        self.live.pop(g.number, None)
        self._stopping.discard(g.number)
        g.ended = True
        if not self.busy:
            self._before = None

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._flight or self.scheduler.running or self.scheduler.waiting)

    def stream(self) -> Iterator[Token]:
        """The tokens of everything that was submitted, as they come out."""
        while self.busy:
            for g, token in self.step():
                yield Token(g.request.id, token, len(g.out) - 1, self.last_s, g.ended)

    def generate(
        self, prompt: Seq[int], output_tokens: int, sampling: Sampling | None = None, stop: Seq[int] = ()
    ) -> list[int]:
        """The tokens that follow one prompt: `output_tokens`, or fewer where a token of `stop` comes out."""
        request = request_of(self._number, prompt, output_tokens, self.limits.block_tokens, self.now())
        g = self.submit(request, prompt, sampling, frozenset(stop))
        while not g.ended:
            self.step()
        return g.out

    # -- steps

    def step(self) -> list[tuple[Generation, int]]:
        """Run a step and return who got which token: its own, or in the overlapped loop those of the step before.

        (In that loop a step that has landed already is read, and nothing is launched.) Each is the last of its
        `Generation.out`; they came out at `last_s`, and whose `ended` is set is done.
        Raises `EngineError` when the device fails or logits are no numbers. After that, and after an interrupt,
        every request in the engine is lost and its memory free; the engine can be used again.
        """
        self._check_open()
        try:
            landed = self.overlap and self._flight and self._flight.launched.landed
            flight = None if landed else self._launch()
            if self.overlap:
                flight, self._flight = self._flight, flight
            return self._read(flight) if flight else []
        except BaseException as error:
            self.abandon(f"{type(error).__name__}: {error}")
            if isinstance(error, torch.OutOfMemoryError | MemoryError):
                raise EngineError(
                    f"out of memory in a step of up to {self.limits.token_budget} tokens; "
                    "lower token_budget, or give KV less memory"
                ) from error
            raise

    def slack_s(self) -> float:
        """How long the next `step` can wait without the device running dry, as far as is known: what is submitted
        until then is in it. 0 in the plain loop, and while nothing is under way."""
        return self._pace.slack_s(self._flight, self.last_s, self.now()) if self._flight else 0.0

    def _launch(self) -> Flight | None:
        began_s = self.now()
        step = self.scheduler.schedule()
        self.scheduler.pool.evicted.clear()
        for g in step.preempted:
            self.runner.leave(g)
            g.close_span(self._launched - 1)
        if not step:
            return None
        row, decodes, launched_s = self._launched, len(step.decode), self.now()
        launched = self.runner.launch(step)
        launch_s = self.now() - launched_s if self._device_clock.asynchronous else 0.0
        self._pace.launched(launched_s + launch_s - began_s)
        self._launched += 1
        chunks = tuple((n, g.computed) for g, n in step.chunks)
        completing = []
        for i, (g, n) in enumerate(step.chunks):
            if g.computed + n == g.goal:
                first = not g.generated  # else it was preempted, and goes on in this very row
                g.row = row + 1 if first else row
                completing.append((g, decodes + i, first))
        finished = self.scheduler.commit(step).finished
        for g in finished:
            self.runner.leave(g)
        return Flight(row, step, launched, chunks, completing, finished, launched_s, launch_s)

    def _read(self, flight: Flight) -> list[tuple[Generation, int]]:
        tokens = flight.launched.read()
        end_s = self.now()
        if min(tokens) == NOT_FINITE:
            raise EngineError(self._not_finite(flight, tokens))
        start_s, self.last_s = max(flight.launched_s, self.last_s), end_s
        # a request may have ended while this step was under way: its row was computed for nothing
        out = [(g, token) for g, token in zip(flight.step.decode, tokens, strict=False) if not g.ended]
        further = len(out)
        for g, index, first in flight.completing:
            if g.ended:
                continue
            out.append((g, tokens[index]))
            if first:
                g.first_token_s = end_s
            else:
                further += 1
        for g, _ in flight.step.chunks:
            if g.prefill_start_s is None:
                g.prefill_start_s = start_s
        for g, token in out:
            g.out.append(token)
        for g in flight.finished:
            if not g.ended:
                self._finish(g, flight.row, end_s)
        if self._stopping:
            for g, token in out:
                if token in g.stop and not g.ended:
                    self._finish(g, flight.row, end_s)
        self._note(flight, start_s, end_s, further)
        self._before = flight.launched.end if self.busy else None
        return out

    def _finish(self, g: Generation, row: int, now_s: float) -> None:
        g.close_span(row)
        self.cancel(g)  # a stop token ends it before the scheduler thought so; else nothing is left to do there
        g.output = g.generated = len(g.out)
        g.finished_s, g.status = now_s, "finished"

    def _note(self, flight: Flight, start_s: float, end_s: float, further: int) -> None:
        self._read_rows += 1
        launched, clock = flight.launched, self._device_clock
        took_s = clock.seconds(launched.begin, launched.end)
        self._pace.landed(launched, took_s)
        if self.record:
            gap_s = 0.0 if self._before is None else max(0.0, clock.seconds(self._before, launched.begin))
            self.log.append(start_s, 1, end_s - start_s, 0.0, further, sum(n for n, _ in flight.chunks))
            work = (flight.chunks, len(flight.step.decode), launched.kv_tokens)
            self.samples.append(StepSample(*work, took_s, flight.launch_s, gap_s))

    @staticmethod
    def _not_finite(flight: Flight, tokens: list[int]) -> str:
        sequences = [*flight.step.decode, *(g for g, _ in flight.step.chunks)]
        wrong = [g.request.id for g, token in zip(sequences, tokens, strict=True) if token == NOT_FINITE]
        return f"the logits of requests {wrong} are not finite; the weights or the KV are damaged"

    # -- when things go wrong, and the end

    def abandon(self, reason: str) -> None:
        """Drop every request and all KV, with a reason. The engine is as new, unless the device itself is lost."""
        self._flight = self._before = None
        self._launched = self._read_rows
        self.scheduler.drain()
        self.runner.forget()
        for g in self.live.values():
            self.runner.leave(g)
            g.close_span(self._read_rows - 1)
            g.ended, g.status, g.reason = True, "unfinished", reason
        self.live.clear()
        self._stopping.clear()
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
    """Limits with as many blocks as memory has room for now, or as `kv_gib` holds; raises `InputError` for none."""
    kv_bytes = kv_gib * 2**30 if kv_gib else kv_bytes_for(decoder.config, torch.device(decoder.device), token_budget)
    blocks = blocks_in(kv_bytes, decoder.config, decoder.dtype, block_tokens)
    return Limits(blocks, block_tokens, token_budget, max_batch)
