"""The engine inside a worker: it takes requests over from others, hands them on, and tells what each step did."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, sleep

from torch import Tensor

from helpers.cluster.messages import Message
from helpers.cluster.movers import Mover
from helpers.cluster.orders import Order
from helpers.cluster.pages import SharedPages
from helpers.cluster.slowing import Pauses, standing_still
from helpers.engine.engine import Engine
from helpers.engine.flight import Flight
from helpers.engine.generation import Generation
from helpers.engine.sampling import Sampling
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Committed, Scheduler, Step


class TellingScheduler(Scheduler):
    """A scheduler that keeps what the front end is to hear: blocks stored and evicted, chunks computed.

    `on_step` is told of a step before it runs.
    """

    def __init__(self, limits: Limits, hand_off: bool, on_step: Callable[[Step], None]) -> None:
        super().__init__(limits, hand_off)
        self._on_step = on_step
        self.stored: list[int] = []
        self.evicted: list[int] = []
        self.chunks: deque[list[tuple[Generation, int, int]]] = deque()  # of a step: who, how many, context before

    def schedule(self) -> Step:
        step = super().schedule()
        self.evicted += self.pool.evicted
        self._on_step(step)
        return step

    def commit(self, step: Step) -> Committed:
        self.chunks.append([(g, n, g.computed) for g, n in step.chunks])
        done = super().commit(step)
        self.stored += done.stored
        return done


class WatchedDecoder:
    """A decoder that can be slowed down by a `factor` where its work is done when `forward` returns, and that keeps the
    logits of its last step when asked."""

    def __init__(self, decoder, keep_logits: bool = False) -> None:
        self._decoder, self.keep_logits = decoder, keep_logits
        self.config, self.device, self.dtype = decoder.config, decoder.device, decoder.dtype
        self.factor = 1.0
        self.logits: Tensor | None = None

    def forward(self, inputs: Tensor, batch, pages) -> Tensor:
        start_s = perf_counter()
        logits = self._decoder.forward(inputs, batch, pages)
        if self.factor > 1.0:
            sleep((self.factor - 1.0) * (perf_counter() - start_s))
        if self.keep_logits:
            self.logits = logits.float().cpu()
        return logits


@dataclass(slots=True)
class StepReport:
    """A step that was read: its row of the step log, and the sequences that it concerned."""

    start_s: float
    seconds: float
    chunks: list[tuple[Generation, int, int]]
    tokens: list[tuple[Generation, int, bool]]  # who, which, whether the first of the request
    decodes: int
    kv_tokens: int
    prefilled: list[Generation] = field(default_factory=list)  # whose KV is now to be handed over

    def message(self, ticket_of: Callable[[Generation], int]) -> Message:
        """As the front end is told of it: by ticket, which tokens came out and which chunks were computed."""
        return {
            "kind": "step",
            "row": [self.start_s, self.seconds, self.decodes, self.kv_tokens],
            "chunks": [[ticket_of(g), n, before, g.cached_tokens, g.prefill_start_s] for g, n, before in self.chunks],
            "tokens": [[ticket_of(g), token, first, g.ended, g.preemptions] for g, token, first in self.tokens],
        }


class HostedEngine(Engine):
    """An engine whose requests may come from other workers, or leave for them after their prefill.

    `meanwhile` is called again and again while a device works on a step that the host waits for.
    """

    def __init__(self, decoder, limits: Limits, path, stage_bytes: int, **how: object) -> None:
        self.watched = WatchedDecoder(decoder)
        self.meanwhile: Callable[[], None] | None = None
        self._pauses: Pauses | None = None
        super().__init__(self.watched, limits, **how)
        self._usual = (self.overlap, self.runner.graphs)
        self.pages = self.runner.pages = SharedPages(self.pages, path, stage_bytes)
        self.begin("mixed", lambda step: None)

    def begin(
        self, role: str, on_step: Callable[[Step], None], keep_logits: bool = False, how: Mover | None = None
    ) -> None:
        """Forget everything, and play `role` from now on; `how` KV leaves, if it does.

        A captured step shows no logits, and between its layers nothing can be launched for a `group`, so there steps
        are launched kernel by kernel. And who waits for a hand-off before the next step cannot launch that step before.
        """
        self.abandon("a new run begins")
        self.pages.watch = None
        self.overlap, self.runner.graphs = self._usual
        if keep_logits or (how and how.early and how.wire == "group"):
            self.runner.graphs = False
        if keep_logits or (how and how.waits):
            self.overlap = False
        self.restart_clock()
        self.hands_off = role == "prefill"
        self.scheduler = TellingScheduler(self.limits, self.hands_off, on_step)
        self.watched.keep_logits = keep_logits
        self.slow_down(1.0)

    def slow_down(self, factor: float) -> None:
        """Let each step from now on take `factor` times as long."""
        if not self.asynchronous:
            self.watched.factor = factor
            return
        if self._pauses is None and factor > 1.0:
            self._pauses = Pauses(self._device_clock, standing_still())
        if self._pauses:
            self._pauses.slow_down(factor)

    def set_origin(self, origin_s: float) -> None:
        """From now on times count from `origin_s`, by the clock that all processes of this machine share. Only while
        nothing is under way."""
        self._origin_s, self.last_s = origin_s, 0.0

    # -- requests that come, and those that go

    def made(self, order: Order) -> Generation:
        """The sequence of an order, with the tokens that are out already; raises `InputError` as `submit` does."""
        g = self._generation(order.request, order.prompt, Sampling(*order.sampling), frozenset(order.stop))
        g.number, g.out = order.number, list(order.out)
        g.generated = len(g.out)
        g.goal = g.prompt + g.generated
        return g

    def take(self, g: Generation) -> None:
        """Queue a sequence for prefill."""
        self.scheduler.add(g)
        self._keep(g)

    def reserve(self, g: Generation) -> bool:
        """Take blocks for a sequence whose KV will come from another worker, if there is room now."""
        g.computed = g.goal
        if not self.scheduler.has_room(g):
            return False
        self.scheduler.reserve(g)
        self._keep(g)
        return True

    def join(self, g: Generation, out: list[int]) -> None:
        """The KV of a reserved sequence is there, and `out` are its tokens so far: it decodes from the next step on."""
        g.out, g.generated = list(out), len(out)
        self.scheduler.join(g)

    def _keep(self, g: Generation) -> None:
        self.live[g.number] = g
        if g.stop:
            self._stopping.add(g.number)

    def cancel(self, g: Generation) -> None:
        """Stop a sequence, between steps; blocks that it kept for a hand-off are free too."""
        super().cancel(g)
        if len(g.blocks):
            self.scheduler.release(g.blocks)
            g.blocks = []

    def pages_of(self, g: Generation, tokens: int) -> list[int]:
        """The physical pages of the first `tokens` tokens of a sequence."""
        size, per_block = self.pages.page_tokens, self.limits.block_tokens // self.pages.page_tokens
        count = -(-tokens // size)
        return [b * per_block + k for b in g.blocks for k in range(per_block)][:count]

    # -- steps

    @property
    def asynchronous(self) -> bool:
        """Whether a step is still under way on the device when its launch has returned."""
        return self._device_clock.asynchronous

    @property
    def landed(self) -> bool:
        """Whether `advance` would not wait for the device: nothing is under way there, or it is through."""
        return not self._flight or self._flight.launched.landed

    @property
    def begun(self) -> int:
        """Steps that were launched so far."""
        return self._launched

    def _launch(self) -> Flight | None:
        flight = super()._launch()
        if flight:
            self.pages.end_of_step()
            if self._pauses:
                self._pauses.after(flight.launched)
        return flight

    def _read(self, flight: Flight) -> list[tuple[Generation, int]]:
        if self.meanwhile and self.asynchronous:
            while not flight.launched.landed:
                self.meanwhile()
        return super()._read(flight)

    def advance(self) -> StepReport | None:
        """Run a step; None when nothing could run, or nothing is to be read yet."""
        rows = self._read_rows
        pairs = self.step()
        if self._read_rows == rows:
            return None
        start_s, _, seconds, *_ = self.log.pending[-1]
        sample = self.samples[-1]
        self.log.pending.clear()
        self.samples.clear()
        chunks = self.scheduler.chunks.popleft()
        report = StepReport(start_s, seconds, chunks, [], sample.decodes, sample.kv_tokens)
        report.tokens = [(g, token, len(g.out) == 1) for g, token in pairs]
        if self.hands_off:
            report.prefilled = [g for g, _ in pairs if not g.ended]
            for g in report.prefilled:
                self.runner.leave(g)
                g.row = -1
        return report

    def view(self) -> list[int]:
        """What the front end is shown of this worker: running, waiting, waiting tokens, KV tokens, blocks used."""
        scheduler = self.scheduler
        kv_tokens = sum(g.computed for g in scheduler.running)
        waiting_tokens, used = scheduler.waiting_tokens(), scheduler.pool.used
        return [len(scheduler.running), len(scheduler.waiting), waiting_tokens, kv_tokens, used]
