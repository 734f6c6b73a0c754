"""What the requests of one front end weigh on the workers, counted from its own dispatches."""

from helpers.policies.prefix_index import BlockIndex


class Ledger:
    """An amount for each request on each of its workers, from `add` until `remove`.

    `amount[w]` is the sum on worker w and `requests[w]` their number; both are 0 for a worker that
    was never named, and never below.
    """

    __slots__ = ("_placed", "amount", "requests")

    def __init__(self) -> None:
        self.amount: list[int] = []
        self.requests: list[int] = []
        self._placed: dict[int, tuple[tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        """Requests that are counted somewhere."""
        return len(self._placed)

    def grow(self, workers: int) -> None:
        """Make room for the workers 0 … workers-1."""
        missing = workers - len(self.amount)
        if missing > 0:
            self.amount += [0] * missing
            self.requests += [0] * missing

    def add(self, request: int, workers: tuple[int, ...], amount: int) -> None:
        """A request weighs `amount` on each of `workers` (each named once); a second `add` replaces the first."""
        self.remove(request)
        self.grow(max(workers) + 1)
        self._placed[request] = workers, amount
        for worker in workers:
            self.amount[worker] += amount
            self.requests[worker] += 1

    def remove(self, request: int) -> None:
        """A request weighs nothing any more; one that is not known is passed over."""
        workers, amount = self._placed.pop(request, ((), 0))
        for worker in workers:
            self.amount[worker] -= amount
            self.requests[worker] -= 1

    def workers(self, request: int) -> tuple[int, ...]:
        """Where a request weighs; nowhere when it is not known."""
        return self._placed.get(request, ((), 0))[0]

    def lost(self, worker: int) -> list[int]:
        """`worker` is gone; returns the requests that were on it. They go on weighing on their other workers."""
        on_it = [request for request, (workers, _) in self._placed.items() if worker in workers]
        for request in on_it:
            workers, amount = self._placed[request]
            self.remove(request)
            left = tuple(other for other in workers if other != worker)
            if left:
                self.add(request, left, amount)
        return on_it


class ActiveBlocks:
    """The KV blocks that requests hold on their decode workers; one that several of them share counts once.

    `held[w]` and `requests[w]` are the blocks and the requests on worker w; `index` says who holds which.
    """

    __slots__ = ("_placed", "_users", "held", "index", "requests")

    def __init__(self) -> None:
        self.held: list[int] = []
        self.requests: list[int] = []
        self.index = BlockIndex()
        self._users: list[dict[int, int]] = []  # worker -> block -> requests that hold it
        self._placed: dict[int, tuple[int, tuple[int, ...], int]] = {}

    def grow(self, workers: int) -> None:
        """Make room for the workers 0 … workers-1."""
        for _ in range(len(self.held), workers):
            self.held.append(0)
            self.requests.append(0)
            self._users.append({})

    def add(self, request: int, worker: int, blocks: tuple[int, ...], unnamed: int) -> None:
        """A request holds `blocks` and `unnamed` more that nobody can share; a second `add` replaces the first."""
        self.remove(request)
        self.grow(worker + 1)
        self._placed[request] = worker, blocks, unnamed
        users, new = self._users[worker], []
        for block in blocks:
            count = users.get(block)
            if count is None:
                users[block] = 1
                new.append(block)
            else:
                users[block] = count + 1
        self.index.store(worker, new)
        self.held[worker] += len(new) + unnamed
        self.requests[worker] += 1

    def remove(self, request: int) -> None:
        """A request holds nothing any more; one that is not known is passed over."""
        placed = self._placed.pop(request, None)
        if placed is None:
            return
        worker, blocks, unnamed = placed
        users, gone = self._users[worker], []
        for block in blocks:
            count = users[block]
            if count == 1:
                del users[block]
                gone.append(block)
            else:
                users[block] = count - 1
        self.index.evict(worker, gone)
        self.held[worker] -= len(gone) + unnamed
        self.requests[worker] -= 1

    def lost(self, worker: int) -> None:
        """`worker` is gone, and what was held there."""
        for request in [request for request, placed in self._placed.items() if placed[0] == worker]:
            self.remove(request)


def placed_on(prefill: int, decode: int) -> tuple[int, ...]:
    """The workers of a decision, each once."""
    return (prefill,) if prefill == decode else (prefill, decode)
