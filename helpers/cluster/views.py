"""What the policies are shown of live workers: the last sample that has come from each, with its real age."""

from collections import deque

from helpers.policies.view import WorkerView


class TelemetryViews:
    """Views as the simulator's: `now` is the time of the question. Before a worker's first sample it looks idle.

    A sample counts from `delay_s` after it was taken, or from when it arrives, whichever is later.
    """

    def __init__(self, roles: list[str], kv_blocks: list[int], delay_s: float = 0.0) -> None:
        self.now = 0.0
        self._roles, self._delay_s = roles, delay_s
        self._shown = [
            (0.0, WorkerView(i, role, 0.0, 0, 0, 0, 0, 0, blocks))
            for i, (role, blocks) in enumerate(zip(roles, kv_blocks, strict=True))
        ]
        self._coming: list[deque[tuple[float, WorkerView]]] = [deque() for _ in roles]
        self.kv_peak_share = [0.0] * len(roles)  # the largest share of its blocks that a worker has shown in use
        self.refresh([True] * len(roles))

    def refresh(self, takes: list[bool]) -> None:
        """Recompute which workers may take which part of a request, of those that take any."""
        open_ones = [(i, role) for i, role in enumerate(self._roles) if takes[i]]
        self.prefill = tuple(i for i, role in open_ones if role != "decode")
        self.decode = tuple(i for i, role in open_ones if role != "prefill")

    def show(self, worker: int, at_s: float, values: list[int]) -> None:
        """A sample of a worker has come; `values` as `HostedEngine.view` gives them."""
        view = self._shown[worker][1]
        sample = view._replace(
            running=values[0],
            waiting=values[1],
            waiting_tokens=values[2],
            kv_tokens=values[3],
            kv_used_blocks=values[4],
        )
        self.kv_peak_share[worker] = max(self.kv_peak_share[worker], values[4] / view.kv_total_blocks)
        if self._delay_s:
            self._coming[worker].append((at_s, sample))
        else:
            self._shown[worker] = (at_s, sample)

    def latest(self, worker: int) -> WorkerView:
        """The last sample that has come from a worker, for those who do not decide; its age is not known."""
        coming = self._coming[worker]
        return (coming[-1] if coming else self._shown[worker])[1]

    def __getitem__(self, worker: int) -> WorkerView:
        coming = self._coming[worker]
        while coming and coming[0][0] + self._delay_s <= self.now:
            self._shown[worker] = coming.popleft()
        at_s, view = self._shown[worker]
        return view._replace(age_s=max(0.0, self.now - at_s))
