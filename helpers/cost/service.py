"""What a request costs a worker when nothing else runs: the service times of queueing theory."""

import math
from dataclasses import dataclass
from functools import cache

from helpers.cost.iteration import CostModel
from helpers.errors import InputError
from helpers.workload.request import Workload


def prefill_s(
    cost: CostModel,
    tokens: int,
    chunk_tokens: int = 2048,
    cached_tokens: int = 0,
    decodes: int = 0,
    kv_tokens: int = 0,
) -> float:
    """Seconds of the steps that compute a prompt of `tokens` after its first `cached_tokens`, in chunks.

    Each step also decodes `decodes` requests that attend to `kv_tokens` tokens. A prompt that is cached
    to its end still costs its last token. Raises `InputError` for no tokens or no chunk.
    """
    if tokens < 1 or chunk_tokens < 1:
        raise InputError(f"a prefill of {tokens} tokens in chunks of {chunk_tokens} is none; give 1 or more of each")
    first = max(0, min(cached_tokens, tokens - 1))
    rest = (tokens - first) % chunk_tokens
    seconds = cost.steps(chunk_tokens, range(first, tokens - rest, chunk_tokens), decodes, kv_tokens)
    if rest:
        seconds.append(cost.step([(rest, tokens - rest)], decodes, kv_tokens))
    return math.fsum(seconds)


@dataclass(frozen=True)
class Service:
    """Service times in seconds, one a request: its prefill alone, and reading its KV in all its decode steps."""

    prefill_s: tuple[float, ...]
    kv_read_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        """The mean prefill time."""
        return math.fsum(self.prefill_s) / len(self.prefill_s)

    @property
    def mean_kv_read_s(self) -> float:
        """The mean time to read the KV of a request in all its steps."""
        return math.fsum(self.kv_read_s) / len(self.kv_read_s)

    @property
    def cv2(self) -> float:
        """The squared coefficient of variation of the prefill times."""
        mean_s = self.mean_s
        return math.fsum((s - mean_s) ** 2 for s in self.prefill_s) / len(self.prefill_s) / mean_s**2

    def share_above(self, bound_s: float) -> float:
        """The share of requests whose prefill alone takes longer than `bound_s`."""
        return sum(s > bound_s for s in self.prefill_s) / len(self.prefill_s)


def service_of(workload: Workload, cost: CostModel, chunk_tokens: int = 2048) -> Service:
    """The service times of a workload on one worker. Raises `InputError` when it holds no request."""
    if not workload.requests:
        raise InputError(f"workload {workload.name} holds no request; there is nothing to serve")
    alone = cache(lambda tokens: prefill_s(cost, tokens, chunk_tokens))
    slope_s = cost.decode(1)[1]
    reads = (slope_s * r.output_tokens * (r.prompt_tokens + r.output_tokens / 2) for r in workload)
    return Service(tuple(alone(r.prompt_tokens) for r in workload), tuple(reads))
