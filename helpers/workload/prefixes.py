"""Shared prefixes: block ids, prefix trees, multi-turn conversations and agents.

Block ids are counters handed out by `BlockIds`: a new id is drawn for every block that holds at
least one token no earlier prompt had at that place, so equal ids mean equal prefixes and unequal
ids mean unequal ones, with no hashing.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from random import Random

from helpers.errors import InputError
from helpers.workload.lengths import Distribution, Tokens
from helpers.workload.request import Request

NOBODY = -1


class BlockIds:
    """Hands out chained block ids for prompts of blocks of `block_tokens` tokens."""

    def __init__(self, block_tokens: int) -> None:
        if block_tokens < 1:
            raise InputError(f"block_tokens is {block_tokens}; use 1 or more")
        self.block_tokens = block_tokens
        self._next = 0

    def extend(self, blocks: tuple[int, ...], shared_tokens: int, prompt_tokens: int) -> tuple[int, ...]:
        """Ids of a prompt whose first `shared_tokens` tokens are those of the prompt of `blocks`.

        Only blocks that lie wholly inside the shared tokens are shared; the block in which the
        texts part, and the partial last block, are new. Returns ceil(prompt/block_tokens) ids.
        """
        keep = shared_tokens // self.block_tokens
        first = self._next
        self._next = first - (-prompt_tokens // self.block_tokens) - keep
        return blocks[:keep] + tuple(range(first, self._next))


@dataclass(frozen=True)
class Level:
    """One level of a prefix tree: each node has `fanout` children of `tokens` tokens each.

    Children are drawn with probability proportional to 1/rank^`skew` (0: all alike).
    """

    tokens: Distribution
    fanout: int = 1
    skew: float = 0.0

    def __post_init__(self) -> None:
        if self.fanout < 1:
            raise InputError(f"a prefix tree level has fanout {self.fanout}; use 1 or more")


@dataclass
class _Node:
    tokens: int
    blocks: tuple[int, ...]
    children: dict[int, "_Node"] = field(default_factory=dict)


class PrefixTree:
    """Shared texts that stand before a prompt: system prompt, then tenant, then document, and so on.

    Nodes are made when they are first drawn. A node's `blocks` cover its full blocks only: the
    block in which its text ends also holds the first tokens of whatever follows.
    """

    def __init__(self, ids: BlockIds, levels: tuple[Level, ...]) -> None:
        self._ids = ids
        self._levels = levels
        self._root = _Node(0, ())
        self._shares = [list(accumulate((rank + 1) ** -level.skew for rank in range(level.fanout))) for level in levels]

    def draw(self, rng: Random) -> tuple[int, tuple[int, ...]]:
        """The length in tokens of a random leaf's text and the ids of its full blocks."""
        node = self._root
        for level, shares in zip(self._levels, self._shares, strict=True):
            child = bisect_right(shares, rng.random() * shares[-1]) if level.fanout > 1 else 0
            if child not in node.children:
                node.children[child] = self._grow(node, max(0, round(level.tokens.draw(rng))))
            node = node.children[child]
        return node.tokens, node.blocks

    def _grow(self, node: _Node, tokens: int) -> _Node:
        end = node.tokens + tokens
        whole = end - end % self._ids.block_tokens
        return _Node(end, self._ids.extend(node.blocks, node.tokens, whole))


@dataclass(frozen=True)
class SessionShape:
    """How one kind of session behaves: conversations of a person, or the tool loop of an agent.

    A session starts with a shared text, then `first_tokens` of its own. Each later turn's prompt
    is the previous prompt + the previous answer + `new_tokens[k]` in the k-th follow-up (the last
    holds from there on). With probability `edit_share` something early in the prompt changes
    instead (an edited message, a document swapped): the length stays, the prefix is kept up to a
    random point. With `resend_share` the same prompt is sent again.

    `continue_shares[k]` is the probability that turn k (from 0) is followed by another; the last
    holds for all later turns. It is multiplied by (1 - prompt / max_prompt_tokens) ** `fade`: long
    prompts are continued less often. A prompt that would pass `max_prompt_tokens` starts over
    from the shared text, as clients do when the context is full.

    `interval_s` is the time between a turn's arrival and the next one's or, without
    `interval_includes_answer`, the time from the end of its answer; one is turned into the other
    with `answer_s_per_token` for each output token. With `causal`, requests carry `parent` and
    that think time, and `arrival_s` is the earliest they could arrive: as if answers took no time.
    """

    first_tokens: Distribution
    new_tokens: tuple[Distribution, ...]
    output_tokens: Tokens
    interval_s: Distribution
    continue_shares: tuple[float, ...]
    edit_share: float = 0.0
    resend_share: float = 0.0
    fade: float = 0.0
    max_prompt_tokens: int = 128_000
    interval_includes_answer: bool = True
    answer_s_per_token: float = 0.03
    causal: bool = False

    def __post_init__(self) -> None:
        shares = (*self.continue_shares, self.edit_share, self.resend_share, self.edit_share + self.resend_share)
        if not self.continue_shares or not all(0 <= share <= 1 for share in shares):
            raise InputError(f"session shares {shares}: give probabilities between 0 and 1")
        if not self.fade >= 0:
            raise InputError(f"fade is {self.fade}; use 0 or more")
        if self.continue_shares[-1] == 1:
            raise InputError("the last continue share is 1: such a session never ends; use less than 1")

    @property
    def mean_turns(self) -> float:
        """Expected turns of a session without fading: 1 + p0 + p0*p1 + ..., the tail a geometric series."""
        reached, turns = 1.0, 0.0
        for share in self.continue_shares:
            turns += reached
            reached *= share
        return turns + reached / (1 - self.continue_shares[-1])

    def within(self, base_tokens: int, prompt_tokens: int) -> int:
        """Clip a prompt to the longest allowed, which must leave room after the shared text."""
        if base_tokens >= self.max_prompt_tokens:
            raise InputError(f"the shared text of {base_tokens} tokens fills max_prompt_tokens; raise the limit")
        return min(prompt_tokens, self.max_prompt_tokens)


@dataclass(slots=True)
class _Turn:
    """What a session knows when its next turn arrives."""

    shape: SessionShape
    session: int
    number: int
    base: tuple[int, tuple[int, ...]]
    prompt_tokens: int
    blocks: tuple[int, ...]
    output_tokens: int
    parent: int = NOBODY
    think_s: float = 0.0


class Sessions:
    """The requests of many overlapping sessions, in order of arrival, made one at a time.

    `starts` are the arrival times of the sessions' first turns, ascending; each session draws its
    shared text from a prefix tree of `levels` and its shape from `kinds` (weight, shape).
    Requests before `from_s` are made but not returned and the clock is set back by `from_s`: that
    warms the population up, so that a trace starts in the middle of conversations, as a real hour
    does. Memory grows with the number of sessions under way, not with the number of requests.
    """

    def __init__(
        self,
        rng: Random,
        starts: Iterator[float],
        kinds: tuple[tuple[float, SessionShape], ...],
        levels: tuple[Level, ...],
        ids: BlockIds,
        from_s: float = 0.0,
    ) -> None:
        self._rng, self._starts, self._ids, self._from_s = rng, starts, ids, from_s
        self._tree = PrefixTree(ids, levels)
        self._shapes = [shape for _, shape in kinds]
        self._weights = list(accumulate(weight for weight, _ in kinds))

    def __iter__(self) -> Iterator[Request]:
        waiting: list[tuple[float, int, _Turn]] = []
        start = next(self._starts, math.inf)
        sessions = emitted = 0
        while waiting or start < math.inf:
            if waiting and waiting[0][0] <= start:
                now, _, turn = heappop(waiting)
            else:
                now, turn = start, self._open(sessions)
                sessions += 1
                start = next(self._starts, math.inf)
            number = NOBODY
            if now >= self._from_s:
                number = emitted
                emitted += 1
                yield _request(number, now - self._from_s, turn)
            follow = self._next_turn(turn, number)
            if follow is not None:
                delay_s, later = follow
                heappush(waiting, (now + delay_s, later.session, later))

    def _open(self, session: int) -> _Turn:
        rng = self._rng
        shape = self._shapes[
            bisect_right(self._weights, rng.random() * self._weights[-1]) if len(self._shapes) > 1 else 0
        ]
        base_tokens, base_blocks = base = self._tree.draw(rng)
        prompt = shape.within(base_tokens, base_tokens + max(1, round(shape.first_tokens.draw(rng))))
        blocks = self._ids.extend(base_blocks, base_tokens, prompt)
        return _Turn(shape, session, 0, base, prompt, blocks, shape.output_tokens.draw(rng))

    def _next_turn(self, turn: _Turn, parent: int) -> tuple[float, _Turn] | None:
        """The session's next turn and how long after this one it arrives, or None when the session ends."""
        shape, rng = turn.shape, self._rng
        goes_on = shape.continue_shares[min(turn.number, len(shape.continue_shares) - 1)]
        if shape.fade:
            goes_on *= (1 - turn.prompt_tokens / shape.max_prompt_tokens) ** shape.fade
        if rng.random() >= goes_on:
            return None
        interval_s, answer_s = shape.interval_s.draw(rng), shape.answer_s_per_token * turn.output_tokens
        think_s = max(0.0, interval_s - answer_s) if shape.interval_includes_answer else interval_s
        prompt, blocks = self._next_prompt(turn)
        output = shape.output_tokens.draw(rng)
        later = _Turn(shape, turn.session, turn.number + 1, turn.base, prompt, blocks, output, parent, think_s)
        return (think_s if shape.causal else max(interval_s, think_s + answer_s)), later

    def _next_prompt(self, turn: _Turn) -> tuple[int, tuple[int, ...]]:
        shape, rng, base_tokens = turn.shape, self._rng, turn.base[0]
        way = rng.random()
        if way < shape.resend_share:
            return turn.prompt_tokens, turn.blocks
        if way < shape.resend_share + shape.edit_share:
            # Early places change more often: the square matches how short the kept prefixes of real traces are.
            shared = base_tokens + int(rng.random() ** 2 * (turn.prompt_tokens - base_tokens))
            return turn.prompt_tokens, self._ids.extend(turn.blocks, shared, turn.prompt_tokens)
        new = max(1, round(shape.new_tokens[min(turn.number, len(shape.new_tokens) - 1)].draw(rng)))
        shared, prompt = turn.prompt_tokens, turn.prompt_tokens + turn.output_tokens + new
        if prompt > shape.max_prompt_tokens:
            shared, prompt = base_tokens, shape.within(base_tokens, base_tokens + new)
        return prompt, self._ids.extend(turn.blocks, shared, prompt)


def _request(number: int, arrival_s: float, turn: _Turn) -> Request:
    linked = turn.shape.causal and turn.parent != NOBODY
    parent, think_s = (turn.parent, turn.think_s) if linked else (None, 0.0)
    return Request(
        number, arrival_s, turn.prompt_tokens, turn.output_tokens, turn.blocks, turn.session, parent, think_s
    )
