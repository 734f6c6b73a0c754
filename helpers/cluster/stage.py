"""Room in the shared memory of a worker through which packed KV is handed over."""

from torch import Tensor

ALIGNMENT = 256


class Stage:
    """A piece of memory [bytes] uint8, given out in spans, the first that fits."""

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self.size = len(memory)
        self._used: list[tuple[int, int]] = []  # (start, end) of the spans that are out, in order

    @property
    def most_bytes(self) -> int:
        """The largest span that it can ever give."""
        return self.size // ALIGNMENT * ALIGNMENT

    def take(self, size: int) -> int | None:
        """The start of a free span of `size` bytes, None when there is none now."""
        size = -(-size // ALIGNMENT) * ALIGNMENT
        start = 0
        for place, (used, end) in enumerate([*self._used, (self.size, self.size)]):
            if start + size <= used:
                self._used.insert(place, (start, start + size))
                return start
            start = end
        return None

    def free(self, start: int) -> None:
        """Give a span back."""
        self._used = [span for span in self._used if span[0] != start]

    def clear(self) -> None:
        """Give everything back."""
        self._used = []
