"""What `hybrid-serving record --part inference` wrote: one engine rung by rung, where its time went, its answers.

The record is a dictionary; nothing is computed here but sums and medians of what it holds.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from helpers.widgets.figures import Axis, Series, bars
from helpers.widgets.recorded import number, point
from helpers.widgets.show import Figure
from helpers.widgets.table import Table

LADDER, ALONE, TIES = "ladder", "one at a time", "where answers part"
ANYWHERE = "in the middle of an answer"
PROFILE, DRAW = "profile: ", "draw "
MILLISECONDS = {"TTFT": "ttft_mean_s", "TPOT": "tpot_mean_s"}
SHARES = {"in a step": "in_steps", "between steps": "between_steps", "nobody there": "nothing_to_do"}
HOST = ("host_launch_s", "host_wait_s")  # the rest of the host's time is small
REST = ("host_schedule_s", "host_rest_s")
TOKENS = ("computed_tokens", "cached_tokens")


def rungs(record: Mapping) -> list[str]:
    """The rungs of a record, the first one first."""
    return list(dict.fromkeys(one["name"].partition(": ")[0] for one in record["parts"][LADDER]["points"]))


def of(record: Mapping, rung: str, name: str) -> Mapping:
    """The point of a rung over all draws."""
    return point(record, LADDER, f"{rung}: {name}")


def draws(record: Mapping) -> list[Mapping]:
    """The sections of whole draws."""
    found = (one for name, one in record["parts"].items() if name.startswith(DRAW))
    return [one for one in found if one.get("count") == len(one["points"])]


def ladder_figure(record: Mapping) -> Figure:
    """Mean E2E of each rung beside what the formula said of it before."""
    names = rungs(record)
    found = [of(record, rung, "e2e_mean_s") for rung in names]
    ends = [[one[key] for one in found] for key in ("value", "min", "max")]
    series = [Series("measured", names, *ends)]
    said = [one.get("predicted", {}).get("formula") for one in found]
    if all(value is not None for value in said):
        series.append(Series("predicted before", names, said))
    load = record["load"]
    return bars(
        series,
        Axis("each rung keeps what those before it brought", ""),
        Axis("mean E2E", "s", from_zero=True),
        title="What each part of the engine brings",
        note=f"{load['requests']} requests a draw, {load['rate_per_s']:g} a second, {found[0]['n']} draws; whiskers "
        "from the least to the most of them. Predicted from steps of another load, before anything was served.",
        origin="measured",
        alt="Bars of the mean E2E, measured and predicted: "
        + ", ".join(f"{rung} {number(one['value'])} s" for rung, one in zip(names, found, strict=True)) + ".",
    )  # fmt: skip


def climbed(record: Mapping, caption: str) -> Table:
    """A row a rung: E2E with its draws, the paired difference to the rung before, and the other latencies."""
    columns = (
        *("rung", "E2E mean (s)", "by draw", "predicted (s)", "against the rung before (s) [95 %]"),
        *(f"{name} (ms)" for name in MILLISECONDS), "output tok/s",
    )  # fmt: skip
    return Table(caption, columns, [_climbed(record, rung) for rung in rungs(record)])


def _climbed(record: Mapping, rung: str) -> list[str]:
    one = of(record, rung, "e2e_mean_s")
    said, before = one.get("predicted", {}).get("formula"), one.get("before")
    others = [1e3 * of(record, rung, name)["value"] for name in MILLISECONDS.values()]
    return [
        rung, number(one["value"]), " ".join(f"{value:.2f}" for value in one.get("samples", ())),
        *(number(said), _apart(before) if before else ""),
        *map(number, others), number(of(record, rung, "tokens_per_s")["value"]),
    ]  # fmt: skip


def _apart(before: Mapping) -> str:
    apart = before["difference"]
    if apart is None:
        return f"{before['mean']:+.2f}: {before['said']}"
    return f"{apart['mean']:+.2f} [{apart['low']:+.2f}, {apart['high']:+.2f}]: {before['said']}"


def time_went(record: Mapping, caption: str) -> Table:
    """A row a rung: where the device's time went by the step log, the host's time a step, and what steps there were."""
    host = "host, ms a step: launching + waiting + the rest"
    columns = ("rung", *SHARES, host, "steps", "mean batch", "prompt tokens: computed + cached")
    return Table(caption, columns, [_time_went(record, rung) for rung in rungs(record)])


def _time_went(record: Mapping, rung: str) -> list[str]:
    def value(name: str) -> float:
        return of(record, rung, name)["value"]

    host_ms = [1e3 * value(name) for name in HOST] + [1e3 * sum(map(value, REST))]
    return [
        rung, *(f"{value(name):.1%}" for name in SHARES.values()),
        " + ".join(f"{one:.2f}" for one in host_ms),
        *(f"{value('steps'):,.0f}", f"{value('mean_batch'):.1f}"),
        " + ".join(f"{value(name):,.0f}" for name in TOKENS),
    ]  # fmt: skip


def alone(record: Mapping, rung: str) -> Mapping:
    """How the answers of a rung compare with those of the first one, of requests that were served one at a time."""
    return point(record, ALONE, f"{rung}: answers as of {rungs(record)[0]}")


def profiled(record: Mapping) -> list[str]:
    """The rungs that were profiled to the end, in their order."""
    return [rung for rung in rungs(record) if record["parts"].get(PROFILE + rung, {}).get("points")]


def profile_table(record: Mapping, names: Sequence[str], caption: str) -> Table:
    """A column a profiled rung: a step, what ran of it and how much the device rested, kernels and launches."""
    found = {rung: {one["name"]: one for one in record["parts"][PROFILE + rung]["points"]} for rung in names}
    kinds = list(dict.fromkeys(name for points in found.values() for name, one in points.items() if one.get("kind")))
    rows = [["a step (ms)", *(f"{1e3 * one['a step, profiled']['value']:.2f}" for one in found.values())]]
    rows += [[f"{kind} (ms)", *(_kind(one, kind) for one in found.values())] for kind in kinds]
    rows += [
        ["kernels running", *(f"{one['kernels running']['value']:.0%}" for one in found.values())],
        ["kernels a step", *(f"{one['kernels']['value']:.0f}" for one in found.values())],
        ["launches a step", *(f"{one['launches']['value']:.0f}" for one in found.values())],
        ["host in launch calls (ms)", *(f"{1e3 * one['launching, host']['value']:.2f}" for one in found.values())],
        ["steps watched", *(str(one["kernels"]["n"]) for one in found.values())],
    ]
    return Table(caption, ("profiled", *names), rows)


def _kind(points: Mapping, kind: str) -> str:
    if kind not in points:
        return ""
    busy = points["kernels running"]["value"] * points["a step, profiled"]["value"]
    return f"{1e3 * points[kind]['value']:.2f} ({points[kind]['value'] / busy:.0%})"


def answers_table(record: Mapping, caption: str) -> Table:
    """A row a rung after the first: how many answers are the same, token by token, and where the others part."""
    first, *others = rungs(record)
    columns = (
        *("rung", f"as {first}, under load", "as the rung before, under load", "first other token: median (least)"),
        f"as {first}, one at a time",
    )
    return Table(caption, columns, [_answers(record, rung, first) for rung in others])


def _answers(record: Mapping, rung: str, first: str) -> list[str]:
    name = f"{rung}: answers as of {first}"
    found = [one for section in draws(record) for one in section["points"] if one["name"] == name]
    alone = [one for one in record["parts"].get(ALONE, {}).get("points", ()) if one["name"] == name]
    parted = [at for one in found for at in one["first_other_token"]]
    count = sum(one["answers"] for one in found)
    return [
        rung,
        *(f"{sum(one[key] for one in found)} of {count}" for key in ("equal", "before_equal")),
        f"{median(parted):.0f} ({min(parted)})" if parted else "none",
        ", ".join(f"{one['equal']} of {one['answers']}" for one in alone),
    ]


def ties_table(record: Mapping, caption: str) -> Table:
    """A row a pair of rungs: how far the logits of the two tokens are apart where answers part, and how far rounding
    moves them; last, how far the best is ahead of the second where nothing is known of a place. Medians, largest."""
    found = {one["name"]: one for one in record["parts"][TIES]["points"]}
    pairs = dict.fromkeys(name.partition(": ")[0] for name in found)
    columns = ("place", "N", "the two tokens apart (logits)", "moved by rounding", "among the two best")
    rows = [
        [
            name.replace(" from ", " parts from "), str(found[f"{name}: apart"]["n"]),
            *(_middle(found[f"{name}: {value}"]) for value in ("apart", "rounding")),
            f"{found[f'{name}: among the two best']['value']:.0%}",
        ]
        for name in pairs if name != ANYWHERE
    ]  # fmt: skip
    if ANYWHERE in pairs:
        lead = found[f"{ANYWHERE}: lead"]
        rows.append([f"{ANYWHERE}: best and second", str(lead["n"]), _middle(lead), "", ""])
    return Table(caption, columns, rows)


def _middle(one: Mapping) -> str:
    return f"{one['value']:.3f} ({one['max']:.3f})"
