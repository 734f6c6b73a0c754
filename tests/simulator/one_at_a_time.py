"""An admission policy that holds requests, for the tests of the line before it."""

from helpers.policies.view import ACCEPT, Dispatched, Finished, Verdict


class OneAtATime:
    """Lets `most` requests be in flight; the rest wait in line. Counts how often it is asked."""

    name, queues, head_of_line = "one_at_a_time", True, True
    observes = frozenset({Dispatched, Finished})

    def __init__(self, most=1):
        self.most, self.inside, self.asked = most, set(), 0

    def admit(self, request, views, decision, now, rng):
        self.asked += 1
        return ACCEPT if len(self.inside) < self.most else Verdict("queue", "full")

    def observe(self, event, now):
        if isinstance(event, Dispatched):
            self.inside.add(event.request.id)
        else:
            self.inside.remove(event.request.id)
