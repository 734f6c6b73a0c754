"""What a worker says when it ends for a reason that nobody foresaw: one sentence, and its traceback in a file."""

import re

from helpers.cluster.orders import WorkerSetup
from helpers.outputs import keep_traceback

ASKED = re.compile(r"tried to allocate ([\d.]+ [KMGT]iB)", re.IGNORECASE)
LONGEST = 300  # of what an exception says


def sentence(error: BaseException, setup: WorkerSetup, serves: bool) -> str:
    """What happened, where, and what to do; `serves`: after its start. A file has the traceback."""
    when = "while it served" if serves else "as it started"
    said = str(error)
    if "out of memory" in said.lower() or isinstance(error, MemoryError):
        asked = ASKED.search(said)
        more = f" ({asked[1]} more were asked for)" if asked else ""
        happened = f"worker {setup.index} ran out of memory on {setup.device} {when}{more}"
        advice = "give KV less of it (--kv-gib), take a smaller model, or free the device"
    else:
        first = next(iter(said.splitlines()), "")[:LONGEST].rstrip(".")
        named = f"{type(error).__name__}: {first}" if first else type(error).__name__
        happened = f"worker {setup.index} ({setup.model} on {setup.device}) failed {when}: {named}"
        advice = ""
    return "; ".join(filter(None, (happened, advice, keep_traceback(error, f"worker-{setup.index}"))))
