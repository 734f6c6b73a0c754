"""The table at the end of a recording: target, floor, measured, peer, N and spread, and what limits each."""

from collections.abc import Iterator

from helpers.bench.engine.report import met, number, spread

COLUMNS = ("part", "point", "measured", "unit", "floor", "target", "met", "peer", "N and range", "what limits it")
# What the floor of a section is made of; without a floor, what the number depends on.
LIMITS = {
    "decode": "memory: weights and KV at copy speed",
    "prefill": "arithmetic: FLOPs at matmul speed",
    "mixed": "the larger of bytes at copy speed and FLOPs at matmul speed",
    "end to end": "prefill arithmetic, then decode memory",
    "loops": "decode memory and what of the host is not hidden",
    "scheduler": "one thread of the host",
    "kernels": "the larger of bytes at copy speed and FLOPs at matmul speed",
    "moe": "the larger of expert bytes at copy speed and FLOPs at matmul speed",
}


def rows(records: dict[str, dict]) -> Iterator[tuple]:
    """One row a point, failure or skipped section of the records, by part."""
    for part, record in records.items():
        for section, found in record["parts"].items():
            peers = {one["name"]: one["value"] for one in found.get("points", ())}
            for one in found.get("points", ()):
                yield (label(part, section), *_cells(section, one, peers))
            for kind in ("skipped", "failed"):
                if kind in found:
                    yield (label(part, section), kind, *[""] * 7, found[kind])


def label(part: str, section: str) -> str:
    """Part and section, said once where they have one name."""
    return section if section == part else f"{part}: {section}"


def _cells(section: str, one: dict, peers: dict[str, float]) -> tuple:
    peer = number(peers.get(one["name"].removeprefix("ours / "))) if one["name"].startswith("ours / ") else ""
    name = one["name"] + (" (from an earlier try)" if one.get("kept") else "")
    return (
        *(name, number(one["value"]), one["unit"], number(one.get("floor"))),
        *(number(one.get("target")), met(one), peer, spread(one), limit_of(section, one)),
    )


def limit_of(section: str, one: dict) -> str:
    """What limits a point and how near it is to that; for a prediction, its error."""
    if "failed" in one or "absent" in one:
        return one.get("failed") or one["absent"]
    if "errors" in one:
        said = [f"simulated with {kind} cost {error:+.1%}" for kind, error in one["errors"].items()]
        return ", ".join(said + ([f"live runs differ by {one['live_error']:.1%}"] if "live_error" in one else []))
    if "low" in one:
        return f"{number(one['low'])} to {number(one['high'])} at {one['level']:.0%}"
    if "p90" in one:
        return f"p90 {one['p90']:.1%}, bias {one['bias']:+.1%}"
    text = LIMITS.get(section, "")
    floor, value = one.get("floor"), one["value"]
    if not floor or not value:
        return text
    return f"{text} ({min(floor, value) / max(floor, value):.0%} of it)"
