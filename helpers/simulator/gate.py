"""An admission policy at work: the requests that it holds, and the order in which they are asked again."""

from collections.abc import Hashable
from heapq import heappop, heappush
from random import Random
from typing import Any

from helpers.policies.view import Admission
from helpers.scheduling.sequence import Sequence

Entry = tuple[Any, int, Sequence]  # rank, number of the arrival, who


class Gate:
    """One admission policy, with its own randomness and its line.

    Whoever is held stands in the lane that the policy names (all in one lane without), ordered by
    rank (see `helpers.policies.view.Admission`) and then by arrival. To find the next costs the
    logarithm of the length of a lane and one question for each lane.
    """

    __slots__ = ("_lane", "_lane_rank", "_lanes", "_length", "_rank", "admission", "head_of_line", "may_hold", "rng")

    def __init__(self, admission: Admission, rng: Random) -> None:
        self.admission, self.rng = admission, rng
        self.may_hold = getattr(admission, "queues", False)
        self.head_of_line = getattr(admission, "head_of_line", False)
        self._rank = getattr(admission, "rank", None)
        self._lane = getattr(admission, "lane", None)
        self._lane_rank = getattr(admission, "lane_rank", None)
        self._lanes: dict[Hashable, list[Entry]] = {}  # heaps
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def hold(self, sequence: Sequence, now: float) -> None:
        """Put a request in the line; its lane and rank are taken once, here."""
        request = sequence.request
        lane = self._lane(request) if self._lane else None
        rank = self._rank(request, now) if self._rank else 0
        self.put_back(lane, (rank, sequence.number, sequence))

    def take(self, now: float) -> tuple[Hashable, Entry]:
        """Take out whose turn it is, with its lane; the line must not be empty."""
        lanes = self._lanes
        if len(lanes) == 1:
            ((lane, line),) = lanes.items()
        else:
            rank = self._lane_rank or _alike
            lane, line = min(lanes.items(), key=lambda item: (rank(item[0], now), item[1][0][:2]))
        entry = heappop(line)
        if not line:
            del lanes[lane]
        self._length -= 1
        return lane, entry

    def put_back(self, lane: Hashable, entry: Entry) -> None:
        """Somebody who was taken out has to wait on, at the same place."""
        heappush(self._lanes.setdefault(lane, []), entry)
        self._length += 1


def _alike(lane: Hashable, now: float) -> int:
    """The rank of every lane, where the policy does not rank them."""
    return 0
