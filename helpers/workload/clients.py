"""A recorded schedule as a limited number of clients would send it."""

from dataclasses import replace

from helpers.errors import InputError
from helpers.workload.request import Workload


def closed_loop(workload: Workload, clients: int) -> Workload:
    """The workload behind `clients` clients: a request is sent at its time, but never before one of them is free.

    Request i waits for the answer to request i - clients, as when each client works through its own list. The
    schedule stays in `arrival_s`, so that the wait before the send can still be seen. Raises `InputError`
    for less than one client and for a workload whose requests wait for others already.
    """
    if clients < 1:
        raise InputError(f"{clients} clients send nothing; give 1 or more")
    requests = workload.requests
    if any(r.parent is not None for r in requests):
        raise InputError(f"workload {workload.name}: its requests wait for others already; it is a closed loop")
    chained = [replace(r, parent=requests[i - clients].id if i >= clients else None) for i, r in enumerate(requests)]
    return replace(workload, requests=tuple(chained), repairs=(*workload.repairs, f"sent by {clients} clients"))
