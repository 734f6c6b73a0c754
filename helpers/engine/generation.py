"""A request inside the engine: the scheduler's sequence, with its real tokens."""

from collections.abc import Sequence as Seq
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from helpers.engine.sampling import Sampling
from helpers.metrics.timeline import Span
from helpers.scheduling.blocks import chain_hash
from helpers.scheduling.sequence import Sequence
from helpers.workload.request import Request


class Token(NamedTuple):
    """One token as it comes out: whose, which, the how manieth (from 0), when, and whether it is the last."""

    request: int
    token: int
    index: int
    time_s: float
    last: bool


class Generation(Sequence):
    """A sequence with the tokens that are known on the host.

    `prompt_tokens` [prompt] int64; `out` are the tokens that have come out. `seat` is its row in the
    runner's tables, -1 when it has none. `ended` is set with the last token, or when nobody waits for
    it any more: whatever a step already under way still computes for it is dropped. `row` is the first
    row of the step log of its decodes, -1 while it has none.
    """

    __slots__ = ("ended", "out", "prompt_tokens", "sampling", "seat", "stop")

    def __init__(
        self,
        request: Request,
        number: int,
        arrival_s: float,
        prompt: Seq[int],
        sampling: Sampling,
        stop: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(request, number, arrival_s)
        self.prompt_tokens = np.asarray(prompt, np.int64)
        self.out: list[int] = []
        self.sampling, self.stop = sampling, stop
        self.seat = -1
        self.ended = False

    def known(self, start: int, count: int) -> np.ndarray:
        """Tokens [count] from position `start` on: of the prompt and, after a preemption, of what had come out."""
        if start + count <= self.prompt:
            return self.prompt_tokens[start : start + count]
        return np.concatenate([self.prompt_tokens, np.array(self.out, np.int64)])[start : start + count]

    def close_span(self, last_row: int, worker: int = 0) -> None:
        """It decoded from `row` of the step log to `last_row`, if it has begun, and no further for now."""
        if 0 <= self.row <= last_row:
            self.spans += (Span(worker, self.row, last_row),)
        self.row = -1


def request_of(number: int, prompt: Seq[int], output_tokens: int, block_tokens: int, arrival_s: float = 0.0) -> Request:
    """A request for real tokens, with the chained hashes of its full blocks, so that equal beginnings are shared."""
    hashes, parent = [], 0
    for start in range(0, len(prompt) - block_tokens + 1, block_tokens):
        parent = chain_hash(parent, prompt[start : start + block_tokens])
        hashes.append(parent)
    return Request(number, arrival_s, len(prompt), output_tokens, tuple(hashes))


def synthetic_tokens(request: Request, block_tokens: int, vocab: int, seed: int = 0) -> np.ndarray:
    """Prompt tokens [prompt] for a request of a trace, which has hashes instead of tokens.

    The tokens of a block are drawn from its hash, so equal hashes give equal tokens and a prefix hit
    is a real one. A part without a hash is drawn from the request's id.
    """
    parts, missing = [], request.prompt_tokens
    for block in request.prefix_blocks:
        if missing <= 0:
            break
        parts.append(_draw(f"block {block}", block_tokens, vocab, seed)[:missing])
        missing -= len(parts[-1])
    if missing > 0:
        parts.append(_draw(f"request {request.id}", missing, vocab, seed))
    return np.concatenate(parts)


def _draw(name: str, count: int, vocab: int, seed: int) -> np.ndarray:
    key = int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key)).integers(0, vocab, count)
