"""The tables of a fidelity: live beside simulated, the order of policies, terms, checks."""

from collections.abc import Iterator

COLUMNS = ("configuration", "figure", "live", "95 % interval", "live against live", "simulated", "error", "goal", "")


def rows(record: dict) -> Iterator[tuple]:
    """A row a figure of a configuration. Seconds as milliseconds."""
    for one in record["held_out"]:
        for found in one["figures"]:
            yield (one["name"], *cells(found))


def cells(found: dict) -> tuple:
    """A figure, its live mean with interval, the spread of the live runs, the simulated value, its error, the goal."""
    scale, unit = scaled(found["unit"])
    live = found["live"]
    name = f"{found['name']} ({unit})"
    sign = "+.1%" if found["unit"] != "share" else "+.3f"
    return (
        name,
        f"{scale * live['mean']:.4g}",
        f"{scale * live['low']:.4g} to {scale * live['high']:.4g}",
        f"{found['live_error']:{sign.replace('+', '')}}",
        f"{scale * found['simulated']:.4g}",
        f"{found['error']:{sign}}",
        "-" if found["goal"] is None else f"{found['goal']:.0%}",
        found["verdict"],
    )


def scaled(unit: str) -> tuple[float, str]:
    """What a value is multiplied with to be shown, and in which unit."""
    return (1e3, "ms") if unit == "s" else (1.0, unit)


def order_rows(record: dict) -> Iterator[tuple]:
    """A row a pair of policies that the live runs tell apart."""
    for one in record["order_of_policies"]:
        live, (scale, unit) = one["live"], scaled(one["unit"])
        yield (
            f"{one['figure']} ({unit})",
            " - ".join(one["pair"]),
            f"{scale * live['mean']:.3g} ({scale * live['low']:.3g} to {scale * live['high']:.3g})",
            f"{scale * one['simulated']:.3g}",
            "same order" if one["same"] else "OTHER ORDER",
        )


ORDER_COLUMNS = ("figure", "pair", "live difference", "simulated", "")
TERM_COLUMNS = ("fleet", "term", "value", "unit")


def term_rows(record: dict) -> Iterator[tuple]:
    """What was measured of the cluster."""
    for fleet, terms in record["terms"].items():
        for whose, costs in (("", terms["cost"]), ("prefill worker: ", terms.get("prefill_cost", {}))):
            for name, value in costs.items():
                yield (fleet, whose + name.removesuffix("_s"), f"{1e6 * value:.4g}", "us")
        yield (fleet, "way to a worker", f"{1e6 * terms['hop_s']:.4g}", "us")
        if terms["link"]:
            yield (fleet, "hand-over latency", f"{1e6 * terms['link']['latency_s']:.4g}", "us")
            yield (fleet, "hand-over rate", f"{terms['link']['bytes_per_s'] / 1e9:.4g}", "GB/s as llama-3.1-8b")


def verdict_counts(record: dict) -> dict[str, int]:
    """How many figures with a goal had which verdict."""
    said = [found["verdict"] for one in record["held_out"] for found in one["figures"] if found["goal"] is not None]
    return {name: said.count(name) for name in ("inside", "within noise", "missed")}
