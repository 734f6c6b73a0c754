"""What a policy believes of the output length of a request, which nobody knows before it has ended."""

from dataclasses import dataclass
from hashlib import blake2b
from math import exp, inf
from statistics import NormalDist

from helpers.errors import InputError
from helpers.workload.request import Request

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class OutputGuess:
    """guess = base * exp(error * z), in tokens, at least 1 (0 for a base of 0)

    `base` is `tokens`, or the true length when that is None: an oracle. z is a standard normal number that
    the request's id alone decides, so that a request has one guess whoever asks, however often. With
    error = 0.5 a guess is off by a factor of 1.65 or more in about a third of the requests. Raises
    `InputError` for a negative length or error.
    """

    tokens: int | None = None
    error: float = 0.0

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 0:
            raise InputError(
                f"a guess of {self.tokens} output tokens is none; give 0 or more, or nothing for the truth"
            )
        if not 0 <= self.error < inf:
            raise InputError(f"the error of a guess is {self.error}; give a standard deviation of 0 or more")

    def of(self, request: Request) -> float:
        """The output tokens that the request is believed to give."""
        base = request.output_tokens if self.tokens is None else self.tokens
        if not self.error or not base:
            return base
        return max(1.0, base * exp(self.error * deviate(request.id)))


def deviate(request_id: int) -> float:
    """A standard normal number for a request id: the same on every machine and in every run."""
    digest = blake2b(str(request_id).encode(), digest_size=8).digest()
    return _NORMAL.inv_cdf((int.from_bytes(digest, "big") + 0.5) / 2.0**64)
