"""Dynamo's router queue: requests wait at the front end rather than in the queue of a worker."""

from dataclasses import dataclass
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.admission.backlog import PromptGate
from helpers.policies.routing import parameter
from helpers.workload.request import Request

ORDERS = ("fcfs", "lcfs", "wspt")


@dataclass(frozen=True, slots=True)
class RouterQueue(PromptGate):
    """A request is held while all live prefill workers have more than threshold x token_budget prompt tokens.

    fcfs: the least arrival + priority           in seconds: each step of priority is a second of waiting
    lcfs: the least priority - arrival           a control that nobody should want
    wspt: the least (1 + priority) x prompt      weighted shortest processing time (Smith 1956)

    Dynamo's KV router, `--router-queue-threshold` and `--router-queue-policy` (read in its 1.3 sources). There
    the queue is off by default; releases that had it on shipped 2, 4 and 16 budgets. A priority there is a
    bonus that comes off the arrival, or a weight (1 + priority) / prompt; here a lower priority is served
    first, and one below 0 counts as 0. Dynamo shortens the prompt in `wspt` by its best cached prefix, this
    one does not. FCFS is kind to the tail of the TTFT, WSPT to its mean, at the price of the long prompts.
    """

    name: ClassVar[str] = "router_queue"
    threshold: float = parameter(4.0, "prompt tokens of a busy worker, in token budgets of a step")
    order: str = parameter("fcfs", "fcfs, lcfs or wspt: who of the held is asked first")

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise InputError(f"admission router_queue: threshold is {self.threshold}; give a number of 0 or more")
        if self.order not in ORDERS:
            raise InputError(f"admission router_queue: order {self.order!r} is unknown; use one of {', '.join(ORDERS)}")

    @property
    def limit_tokens(self) -> float:
        """The prompt tokens over which a worker is busy."""
        return self.threshold * self.token_budget

    def rank(self, request: Request, now: float) -> float:
        """The held are asked in ascending order of this."""
        priority = max(request.priority, 0)
        if self.order == "wspt":
            return (1 + priority) * request.prompt_tokens
        return now + priority if self.order == "fcfs" else priority - now
