"""The fabric between workers: every transfer occupies the sender's way out and the receiver's way in."""

from helpers.cost.transfer import Link


class Links:
    """Equal full-duplex connections of `workers` workers to one non-blocking fabric.

    A transfer starts when the sender's outgoing and the receiver's incoming direction are both
    free, in the order in which transfers are asked for.
    """

    def __init__(self, link: Link, workers: int) -> None:
        self.link = link
        self._out = [0.0] * workers
        self._in = [0.0] * workers

    def grow(self) -> None:
        """Connect one more worker."""
        self._out.append(0.0)
        self._in.append(0.0)

    def idle_s(self, source: int, target: int, now: float) -> float:
        """For how long nothing has crossed the way from `source` to `target`; 0 while something does."""
        return max(0.0, now - max(self._out[source], self._in[target]))

    def send(self, source: int, target: int, seconds: float, now: float) -> tuple[float, float]:
        """Book a transfer that takes `seconds` (latency included); returns its (start, end)."""
        start = max(now, self._out[source], self._in[target])
        end = start + seconds
        self._out[source] = self._in[target] = end
        return start, end
