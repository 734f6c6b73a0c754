"""Is a comparison sound, and would it have noticed a wrong one? A goal that is missed is neither's business."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from helpers.bench.fidelity.compared import INSIDE, SHOWN, Figures, compare
from helpers.bench.fidelity.plan import Slice


def as_written(slices: Sequence[Slice], frozen: Mapping[str, str]) -> dict:
    """Whether the slices are those whose digests are written down with the plan."""
    changed = [one.name for one in slices if not one.sha256().startswith(frozen.get(one.name, "nothing"))]
    return said("the slices are those that were written down", changed, f"{len(slices)} digests")


def checks(served: Mapping) -> list[dict]:
    """What must hold of every configuration: its runs are sound runs of the requests that were frozen."""
    broken = [f"{name}: {one.broken[0]}" for name, one in served.items() if one.broken]
    moved = [name for name, one in served.items() if one.workload.sha256 != one.sha256]
    runs = sum(len(one.live) for one in served.values())
    lacking = [name for name, one in served.items() if set(one.simulated) != set(one.live[0])]
    return [
        said("every live run is sound", broken, f"{runs} runs served what was asked, each request once"),
        said("the requests stayed as they were", moved, f"{len(served)} workloads are those of their digests"),
        said("both sides have the same figures", lacking, "nothing is compared with nothing"),
    ]


def controls(served: Mapping) -> list[dict]:
    """Comparisons that must come out wrong, or right: a planted cost, live with itself, figures of somebody else."""
    unseen = [name for name, one in served.items() if not missed(one.live, one.planted)]
    strange = [name for name, one in served.items() if outside(one.live, mean_of(one.live))]
    found = [
        said("a planted cost is outside the goal", unseen, "seen in every configuration"),
        said("live held against itself is inside", strange, "in every configuration"),
    ]
    shuffled = derangement(served)
    if shuffled:
        same = [f"{a} as {b}" for a, b in shuffled if not missed(served[a].live, served[b].simulated)]
        found.append(said("figures of another configuration are caught", same, f"{len(shuffled)} pairs, all caught"))
    return found


def said(name: str, against: list[str], otherwise: str) -> dict:
    """A result with what speaks against it."""
    return {"name": name, "passed": not against, "said": "; ".join(against) or otherwise}


def missed(live: list[Figures], other: Figures) -> bool:
    """Whether a figure with a goal is beyond it, whatever the spread of the live runs excuses."""
    return any(one.goal is not None and abs(one.error) > one.goal for one in compare(live, other))


def outside(live: list[Figures], other: Figures) -> bool:
    """Whether a figure is not inside its goal."""
    return any(one.verdict not in (INSIDE, SHOWN) for one in compare(live, other))


def mean_of(live: list[Figures]) -> Figures:
    """The means of live runs, as if a simulator had said them."""
    return {name: fmean(one[name] for one in live) for name in live[0]}


def derangement(served: Mapping) -> list[tuple[str, str]]:
    """Each configuration with the next one that gets other requests; none where all get the same."""
    names = list(served)
    found = []
    for i, name in enumerate(names):
        others = [*names[i + 1 :], *names[:i]]
        other = next((one for one in others if served[one].sha256 != served[name].sha256), None)
        if other:
            found.append((name, other))
    return found
