"""What the front end of the simulator asks of a cluster, answered for live workers."""

from collections.abc import Callable
from dataclasses import dataclass

from helpers.policies.view import Decision
from helpers.scheduling.sequence import Sequence
from helpers.simulator.spec import WorkerSpec


@dataclass(frozen=True)
class LiveSpec:
    """A fleet as the front end knows it."""

    workers: tuple[WorkerSpec, ...]
    hop_s: float = 0.0  # the way to a worker takes as long as it takes


class LiveWorker:
    """A worker as the front end knows it: where requests are handed over."""

    def __init__(self, index: int, spec: WorkerSpec, submit: Callable[["LiveWorker", Sequence, float], None]) -> None:
        self.index, self.spec, self._submit = index, spec, submit

    def submit(self, sequence: Sequence, now: float) -> None:
        """Hand a request over."""
        self._submit(self, sequence, now)


class NoFetch:
    """Copies between prefix caches are not carried out: what was not copied is computed. `asked` counts them."""

    def __init__(self) -> None:
        self.asked = 0

    def fetch(self, sequence: Sequence, decision: Decision, now: float) -> float:
        """When the copy has arrived: at once, as there is none."""
        self.asked += 1
        return now


@dataclass
class Payload:
    """What a request carries besides its sizes: tokens, a way of sampling (temperature, top_p, top_k, seed), listeners.

    `on_token(token, last)` hears of each token, `on_end(sequence)` of the end, however it comes about.
    """

    prompt: list[int] | None = None
    sampling: tuple[float, float, int, int] = (0.0, 1.0, 0, 0)
    stop: tuple[int, ...] = ()
    on_token: Callable[[int, bool], None] | None = None
    on_end: Callable[[Sequence], None] | None = None
