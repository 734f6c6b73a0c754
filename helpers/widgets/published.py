"""A published figure beside what the simulator gives for it."""

from collections.abc import Sequence

from helpers.widgets.figures import Axis, Series, bars
from helpers.widgets.show import Figure
from helpers.widgets.table import Table

ARMS = ("random", "least load", "local", "global")


def beside_paper(rows: Sequence[dict], labels: Sequence[str], requests: int) -> Figure:
    """Mean TTFT of each arm: the paper's, and the simulator's under each of the set-ups `labels`.

    `rows` are those of `hybrid-serving bench mooncake-fig5`; whiskers span the seeds.
    """
    by = {(row["label"], row["arm"]): row for row in rows}
    paper = Series("published", ARMS, [by[labels[0], arm]["paper_ttft_s"] for arm in ARMS])
    ours = [_simulated(label, [by[label, arm] for arm in ARMS]) for label in labels]
    return bars(
        [paper, *ours],
        Axis("how the prefill node is chosen", ""),
        Axis("mean TTFT", "s", from_zero=True),
        title="Mooncake's figure 5, published and simulated",
        alt="Bars of the mean TTFT for random, least load, local and global: the order is the same in the paper and in "
        "every simulated set-up, the cache-aware arms are faster than published unless the cache is small.",
        note=f"N = {requests:,} requests a run; whiskers span three seeds, where a seed changes anything.",
        origin="simulated",
    )


def _simulated(label: str, rows: Sequence[dict]) -> Series:
    return Series(
        label,
        [row["arm"] for row in rows],
        [row["ttft_s"] for row in rows],
        [row["low_s"] for row in rows],
        [row["high_s"] for row in rows],
    )


def set_ups(rows: Sequence[dict], caption: str) -> Table:
    """Every set-up of the study: mean TTFT of each arm in seconds, and the others over global where it is stable."""
    labels = dict.fromkeys((row["varied"], row["label"]) for row in rows)
    table = []
    for varied, label in labels:
        of_arm = {row["arm"]: row for row in rows if (row["varied"], row["label"]) == (varied, label)}
        means = [f"{of_arm[arm]['ttft_s']:.2f}" for arm in ARMS]
        ratios = [of_arm[arm]["ratio"] for arm in ARMS[:-1]]
        shown = "past its knee" if None in ratios else " : ".join(f"{ratio:.2f}" for ratio in ratios)
        table.append((f"{varied}: {label}", *means, shown))
    return Table(caption, ("set-up", *ARMS, "the first three over global"), table)
