"""Steps under way on the device, and the pace at which they go."""

from collections import deque
from dataclasses import dataclass

from helpers.engine.generation import Generation
from helpers.engine.runner import Launched
from helpers.scheduling.scheduler import Step

# A launch is expected to take no longer than LEAD times the slowest of the last LAUNCHES, and SPARE_S more.
LAUNCHES, LEAD, SPARE_S = 32, 1.5, 3e-4


@dataclass(slots=True)
class Flight:
    """A step that was launched: what must be known when its tokens are read."""

    row: int  # of the step log
    step: Step
    launched: Launched
    chunks: tuple[tuple[int, int], ...]  # (new tokens, context before them)
    completing: list[tuple[Generation, int, bool]]  # prefills that end here, which token is theirs, whether their first
    finished: list[Generation]  # those whose output is complete with this step
    launched_s: float
    launch_s: float  # what the host took for it, 0 where the launch is the work itself


class Pace:
    """What steps took on the device and launches on the host: how long the next launch can wait."""

    def __init__(self) -> None:
        self._steps_s: dict[tuple[str, int], float] = {}  # the last one of each graph
        self._launches_s = deque([0.0], LAUNCHES)

    def launched(self, seconds: float) -> None:
        """The host took this long to schedule and launch a step."""
        self._launches_s.append(seconds)

    def landed(self, launched: Launched, seconds: float) -> None:
        """The device took this long for a step."""
        if launched.graph:
            self._steps_s[launched.graph] = seconds

    def slack_s(self, flight: Flight, before_s: float, now_s: float) -> float:
        """Seconds until the step after `flight` must be launched, when the step before it ended at `before_s`.

        0 for a step of a shape that has not been seen, or was not captured: its end cannot be foretold.
        """
        seconds = self._steps_s.get(flight.launched.graph)
        if seconds is None or flight.launched.landed:
            return 0.0
        end_s = max(flight.launched_s + flight.launch_s, before_s) + seconds
        return max(0.0, end_s - LEAD * max(self._launches_s) - SPARE_S - now_s)
