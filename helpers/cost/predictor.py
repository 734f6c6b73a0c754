"""Predicted latencies of a request on a worker: what a policy asks before it decides.

The interface is `helpers.policies.view.Predictor`. What a policy is told of a worker says how many
tokens wait there, not how they are divided into prompts; each formula below says what it assumes.
"""

from dataclasses import dataclass
from math import inf
from typing import Protocol

from helpers.cost.iteration import CostModel
from helpers.cost.service import prefill_s
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.workload.request import Request


class Load(Protocol):
    """The part of a `WorkerView` that a prediction reads."""

    role: str
    running: int
    waiting: int
    waiting_tokens: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class CostPredictor:
    """Predictions from the cost of a step, the token budget of a step and the link between workers.

    prefill = sum of the steps that compute tokens [cached, prompt) in chunks of `chunk_tokens - decodes`
    queue   = max(waiting, 1) prefills of waiting_tokens / max(waiting, 1) tokens each, from context 0
    TTFT    = queue + prefill
    TPOT    = a decode-only step with the request added: (running + 1) requests, kv_tokens + prompt tokens of KV
    transfer = latency + tokens * `kv_bytes_per_token` / link rate

    On a mixed worker all running requests count as decodes that share each step; on a prefill worker
    none does. All times in seconds. Not predicted: a link that is busy, preemption, and the change of the
    load while the request waits. Raises `InputError` for `chunk_tokens` below 1 or negative KV bytes.
    """

    cost: CostModel
    chunk_tokens: int
    link: Link | None = None
    kv_bytes_per_token: float = 0.0

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise InputError(f"a predictor with chunk_tokens {self.chunk_tokens} computes nothing; give 1 or more")
        if self.kv_bytes_per_token < 0:
            raise InputError(f"kv_bytes_per_token is {self.kv_bytes_per_token}; give 0 or more")

    def prefill_s(self, prompt_tokens: int, cached_tokens: int = 0, decodes: int = 0, kv_tokens: int = 0) -> float:
        """Seconds to compute a prompt beside `decodes` requests, whose tokens come out of the same budget."""
        chunk = max(1, self.chunk_tokens - decodes)
        return prefill_s(self.cost, prompt_tokens, chunk, cached_tokens, decodes, kv_tokens)

    def queue_s(self, view: Load) -> float:
        """Seconds until the prompt tokens that wait on a worker are computed."""
        if view.waiting_tokens < 1:
            return 0.0
        prompts = max(view.waiting, 1)
        decodes, kv_tokens = self._beside(view)
        return prompts * self.prefill_s(max(1, round(view.waiting_tokens / prompts)), 0, decodes, kv_tokens)

    def ttft_s(self, request: Request, view: Load, cached_tokens: int = 0) -> float:
        """Seconds from now to the first token of a request of which `cached_tokens` leading tokens are cached."""
        return self.queue_s(view) + self.service_s(request, view, cached_tokens)

    def service_s(self, request: Request, view: Load, cached_tokens: int = 0) -> float:
        """Seconds to compute a request's own prompt beside what runs on a worker: its TTFT without a queue."""
        return self.prefill_s(request.prompt_tokens, cached_tokens, *self._beside(view))

    def tpot_s(self, request: Request, view: Load) -> float:
        """Seconds of a decode-only step once the request has joined the running ones."""
        base, slope = self.cost.decode(view.running + 1)
        return base + slope * (view.kv_tokens + request.prompt_tokens)

    def transfer_s(self, request: Request, source: int, target: int, tokens: int | None = None) -> float:
        """Seconds to copy the KV of `tokens` prompt tokens (None: all) between two workers over an idle link.

        0 from a worker to itself, infinite without a link.
        """
        if source == target:
            return 0.0
        if self.link is None:
            return inf
        moved = request.prompt_tokens if tokens is None else tokens
        return self.link.transfer_s(moved * self.kv_bytes_per_token)

    @staticmethod
    def _beside(view: Load) -> tuple[int, int]:
        """(decodes, KV tokens) that share the steps of a prefill."""
        return (view.running, view.kv_tokens) if view.role == "mixed" else (0, 0)
