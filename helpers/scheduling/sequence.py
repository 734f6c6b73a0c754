"""One request inside a worker: what has been computed, what has come out, which blocks it holds."""

from operator import attrgetter

from helpers.scheduling.blocks import blocks_for
from helpers.workload.request import Request


class Sequence:
    """The mutable state of a request from the front end to its last token.

    `computed` tokens have their KV in blocks; `generated` tokens are out. A sequence is in
    prefill while `computed < goal`, where `goal` is everything known so far (the prompt, after a
    preemption also the tokens already generated); finishing the prefill yields one token.
    Afterwards each step computes one token and yields one, and `computed == prompt +
    generated - 1` holds between steps.
    """

    __slots__ = (
        "arrival_s",
        "blocks",
        "cached_tokens",
        "computed",
        "decode_worker",
        "dispatched_s",
        "fetched_tokens",
        "finish_it",
        "finished_s",
        "first_admitted",
        "first_token_s",
        "full",
        "generated",
        "goal",
        "hashes",
        "held",
        "imported",
        "named",
        "number",
        "order",
        "output",
        "preemptions",
        "prefill_start_s",
        "prefill_worker",
        "prefilled_tokens",
        "priority",
        "prompt",
        "published",
        "reason",
        "request",
        "requeues",
        "row",
        "spans",
        "status",
        "transfer_end_s",
        "transfer_start_s",
    )  # fmt: skip

    def __init__(self, request: Request, number: int, arrival_s: float) -> None:
        prompt = request.prompt_tokens
        self.request = request
        self.number = number  # the order of arrival at the front end, which breaks ties of priority
        self.prompt = prompt
        self.output = request.output_tokens
        self.hashes = request.prefix_blocks
        self.priority = request.priority
        self.computed = self.generated = 0
        self.goal = prompt
        self.blocks: list[int] | tuple = ()
        self.order = 0  # the order of admission to the running set
        self.published = 0  # leading blocks that are in the prefix cache or known to be private
        self.imported = 0  # prompt tokens whose KV was copied from another worker
        self.first_admitted = False
        self.cached_tokens = self.fetched_tokens = self.prefilled_tokens = 0
        self.preemptions = self.requeues = 0
        self.prefill_worker = self.decode_worker = None
        self.dispatched_s = self.prefill_start_s = self.first_token_s = self.finished_s = None
        self.transfer_start_s = self.transfer_end_s = None
        self.arrival_s = arrival_s
        self.status, self.reason = "unfinished", ""
        self.spans: tuple[tuple[int, int, int], ...] = ()
        self.row = -1  # used by the simulator's workers alone, like `finish_it`: the first row of its decodes
        self.finish_it = 0
        self.full = 0  # full prompt blocks with a hash
        self.held = 0  # blocks held at admission, counted, and the hashes of those that have a name
        self.named: list[int] | tuple = ()

    def copy(self) -> "Sequence":
        """A sequence in the same state, to be changed apart; the standard library's copy takes five times as long."""
        twin = object.__new__(Sequence)
        for name, value in zip(Sequence.__slots__, STATE_OF(self), strict=True):
            setattr(twin, name, value)
        twin.blocks, twin.named = list(self.blocks), list(self.named)
        return twin

    def full_hashes(self, block_tokens: int) -> int:
        """How many leading prompt blocks are full and have a hash: only those can be cached."""
        full = self.prompt // block_tokens
        return full if full < len(self.hashes) else len(self.hashes)

    def matchable(self, block_tokens: int) -> int:
        """How many leading blocks may be taken from the cache: never the whole prompt, whose last
        position must be computed to give the next token."""
        most = (self.goal - 1) // block_tokens
        full = self.full_hashes(block_tokens)
        return most if most < full else full

    def restart(self) -> None:
        """Forget the computed KV; what was generated stays and is recomputed as part of the prefill."""
        self.computed = self.published = self.imported = 0
        self.goal = self.prompt + self.generated
        self.blocks = []
        self.held, self.named = 0, ()

    def blocks_at_most(self, block_tokens: int) -> int:
        """Blocks held just before the last token: the most the sequence ever needs."""
        return blocks_for(self.prompt + self.output - 1, block_tokens)


STATE_OF = attrgetter(*Sequence.__slots__)
