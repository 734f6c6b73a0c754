"""The traffic of a help desk: questions about documents, and texts to sum up, in the order in which they come."""

from dataclasses import replace

from helpers.workload.request import Workload


def desk(name: str, questions: Workload, summaries: Workload) -> Workload:
    """Both as one workload, each request with its class."""
    classes = {"question": questions, "summary": summaries}
    classed = [replace(r, slo_class=kind) for kind, requests in classes.items() for r in requests]
    classed.sort(key=lambda r: r.arrival_s)
    requests = tuple(replace(r, id=number) for number, r in enumerate(classed))
    return Workload(name, requests, questions.block_tokens, f"{questions.source}; {summaries.source}")
