"""From the reports of live workers to step logs and sequences: the record that every backend makes.

A step and its tokens come in one message, so that what a lost worker had told is all there, and nothing is half
there. A row counts the tokens that were credited to a request: those of a try that was given up belong to no one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from helpers.cluster.messages import Message
from helpers.cost.samples import StepSample
from helpers.metrics.timeline import Span, StepLog
from helpers.scheduling.sequence import Sequence


@dataclass(slots=True)
class Ticket:
    """One try at a request: where it is prefilled and decoded, whether its KV has arrived there, and whether the token
    of its prefill has come in (`begun`)."""

    number: int
    sequence: Sequence
    prefill: int
    decode: int
    joined: bool
    preemptions: int = 0  # of the tries before
    begun: bool = False

    def is_on(self, worker: int) -> bool:
        """Whether the try cannot go on without this worker."""
        return worker == self.decode or (worker == self.prefill and not (self.joined and self.begun))

    def is_early(self, worker: int) -> bool:
        """Whether a token from this worker has overtaken that of the prefill: they come from different processes."""
        return worker != self.prefill and not self.begun


@dataclass(slots=True)
class Credited:
    """What a step brought to whom: (sequence, token, first, ended), and the time at which it was out."""

    end_s: float
    tokens: list[tuple[Ticket, int, bool, bool]] = field(default_factory=list)


class Books:
    """The step log of each worker, and the tokens and logits of each request by its id.

    Without `record` nothing is kept of what is over: an endpoint runs for as long as it likes.
    """

    def __init__(self, workers: int, record: bool = True) -> None:
        self._record = record
        self.logs = tuple(StepLog() for _ in range(workers))
        self.samples: list[list[StepSample]] = [[] for _ in range(workers)]
        self.tokens: dict[int, list[int]] = {}
        self.logits: dict[int, list[bytes]] = {}
        self.moved_bytes = self.checked = self.wrong = self.hand_offs = 0
        self.legs: dict[int, list] = {}  # of the hand-off of each request, as `receiver.Legs` gives them
        self.ignored = 0  # tokens of tries that had been given up, which nobody was sent

    def step(self, worker: int, message: Message, tickets: dict[int, Ticket], live: dict[int, Ticket]) -> Credited:
        """Enter a step. `tickets` are all that were ever given out, `live` those that are still tried."""
        start_s, seconds, decodes, kv_tokens = message["row"]
        log, row = self.logs[worker], len(self.logs[worker])
        credited = Credited(start_s + seconds)
        prefilled = self._chunks(message["chunks"], tickets)
        decoding = 0
        logits = message.get("logits")
        for place, (number, token, first, ended, preemptions) in enumerate(message["tokens"]):
            ticket = live.get(number)
            if ticket is None:
                self.ignored += 1
                continue
            ticket.begun = ticket.begun or worker == ticket.prefill
            sequence = ticket.sequence
            sequence.generated += 1
            sequence.preemptions = ticket.preemptions + preemptions
            self.tokens.setdefault(sequence.request.id, []).append(token)
            if logits:
                self.logits.setdefault(sequence.request.id, []).append(logits[place])
            if first:
                sequence.first_token_s = credited.end_s
            else:
                decoding += 1
                if self._record:
                    extend(sequence, worker, row)
            credited.tokens.append((ticket, token, first, ended))
        if not self._record:
            return credited
        log.append(start_s, 1, seconds, 0.0, decoding, prefilled)
        chunks = tuple((n, before) for _, n, before, *_ in message["chunks"])
        self.samples[worker].append(StepSample(chunks, decodes, kv_tokens, seconds))
        return credited

    @staticmethod
    def _chunks(chunks: Iterable[list], tickets: dict[int, Ticket]) -> int:
        """Credit prefill; returns how many tokens of it belong to a request."""
        prefilled = 0
        for number, n, _, cached_tokens, prefill_start_s in chunks:
            if number not in tickets:
                continue
            sequence = tickets[number].sequence
            prefilled += n
            sequence.prefilled_tokens += n
            if not sequence.first_admitted:
                sequence.first_admitted = True
                sequence.cached_tokens, sequence.prefill_start_s = cached_tokens, prefill_start_s
        return prefilled

    def forget(self, request_id: int) -> None:
        """Keep nothing of a request that is over."""
        self.tokens.pop(request_id, None)
        self.logits.pop(request_id, None)

    def joined(self, values: list, live: dict[int, Ticket]) -> Sequence | None:
        """The KV of a request is at its decode worker; returns it, unless it has been given up."""
        number, start_s, end_s, nbytes, checked, wrong, legs = values
        self.moved_bytes += nbytes
        self.hand_offs += 1
        self.checked += checked
        self.wrong += wrong
        ticket = live.get(number)
        if ticket:
            ticket.joined = True
            ticket.sequence.transfer_start_s, ticket.sequence.transfer_end_s = start_s, end_s
            if self._record:
                self.legs[ticket.sequence.request.id] = legs
        return ticket.sequence if ticket else None


def extend(sequence: Sequence, worker: int, row: int) -> None:
    """A request put out a token in this row: its last span grows by it, or a new one begins."""
    if sequence.spans and sequence.spans[-1][0] == worker and sequence.spans[-1][2] == row - 1:
        last = sequence.spans[-1]
        sequence.spans = (*sequence.spans[:-1], Span(worker, last[1], row))
    else:
        sequence.spans += (Span(worker, row, row),)
