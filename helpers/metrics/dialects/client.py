"""What a load generator sees of a run: when it was to send, when it sent, and what came back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from helpers.errors import InputError
from helpers.metrics.percentiles import Ordered
from helpers.metrics.series import departure_s
from helpers.metrics.steps import gaps
from helpers.metrics.timeline import EventLog, Timeline, segments


@dataclass(frozen=True)
class Clock:
    """When each request was due by the schedule, and when the client sent it, by request id, in seconds.

    Both are `Timeline.arrival_s` where they are not given. They part ways when a client is late or may only
    have so many requests under way: of a workload behind `closed_loop` the timelines hold the sends, and the
    schedule is in the workload (`Clock(due_s={r.id: r.arrival_s for r in workload})`); of a client that
    measured its own delay, `sent_s` holds the sends.
    """

    due_s: Mapping[int, float] = field(default_factory=dict)
    sent_s: Mapping[int, float] = field(default_factory=dict)

    def due(self, timeline: Timeline) -> float:
        """When the schedule wanted the request sent."""
        return self.due_s.get(timeline.id, timeline.arrival_s)

    def sent(self, timeline: Timeline) -> float:
        """When the client sent the request."""
        return self.sent_s.get(timeline.id, timeline.arrival_s)


ON_TIME = Clock()


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that was answered to the end: its times in seconds, its output tokens."""

    timeline: Timeline
    due_s: float
    sent_s: float
    first_s: float
    last_s: float
    tokens: int

    @property
    def decode_s(self) -> float:
        """From the first to the last token."""
        return self.last_s - self.first_s

    @property
    def pace_s(self) -> float | None:
        """`decode_s` over the tokens after the first; None for an answer of one token."""
        return self.decode_s / (self.tokens - 1) if self.tokens > 1 else None


def answers(log: EventLog, clock: Clock = ON_TIME) -> list[Answer]:
    """The requests that finished, in order of id. Raises InputError for one sent after its first token."""
    found = []
    for t in log.timelines:
        if t.status != "finished" or t.first_token_s is None or t.finished_s is None:
            continue
        one = Answer(t, clock.due(t), clock.sent(t), t.first_token_s, t.finished_s, t.output_tokens)
        if max(one.due_s, one.sent_s) > one.first_s:
            raise InputError(f"request {t.id}: its first token is out before it is due or sent; check the clock given")
        found.append(one)
    return found


def first_sent_s(log: EventLog, clock: Clock = ON_TIME) -> float:
    """When the first request was sent; 0 in a run of none."""
    return min(map(clock.sent, log.timelines), default=0.0)


def last_left_s(log: EventLog) -> float:
    """When the last request left, answered or refused; 0 in a run of none."""
    return max((s for s in map(departure_s, log.timelines) if s is not None), default=0.0)


def knows_tokens(log: EventLog) -> bool:
    """Whether the log says when each token was out: a recording without steps does not."""
    return bool(log.step_logs) or all(t.generated_tokens < 2 for t in log.timelines)


def pooled_gaps(log: EventLog, chosen: Iterable[Answer]) -> dict[int, list[float]] | None:
    """All gaps between tokens of these answers, in seconds, by how often each occurred; None when not known."""
    return gaps([a.timeline for a in chosen], log.step_logs).by_weight if knows_tokens(log) else None


def second_gap_s(answer: Answer, log: EventLog) -> float | None:
    """From the first token to the second; None for an answer of one token, and when it is not known."""
    if not log.step_logs:
        return None
    first = next(segments(answer.timeline, log.step_logs), None)
    return None if first is None else next(first.token_times()) - answer.first_s


def deviation(groups: Mapping[int, Sequence[float]]) -> float:
    """The standard deviation of weighted values, divided by their number as NumPy does by default; 0 of none."""
    ordered = Ordered(groups)
    if not ordered.n:
        return 0.0
    squares = sum(w * sum((v - ordered.mean) ** 2 for v in values) for w, values in groups.items())
    return (squares / ordered.n) ** 0.5
