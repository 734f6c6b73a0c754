"""What `helpers.bench.disagg.figures.latencies` gives of a live run, as statistics: declared once, in its order.

Records quote these words as they were when a record was made; nothing reads them back.
"""

from helpers.bench.targets.target import Statistic

TTFT = Statistic("ttft_mean_s", "s", "mean of arrival to first token", "lower")
GAP = Statistic("longest_gap_s", "s", "mean over requests of the longest wait between two of their tokens", "lower")
LATENCIES = (
    TTFT,
    Statistic("ttft_p90_s", "s", "p90 of TTFT", "lower"),
    Statistic("tpot_mean_s", "s", "mean of TPOT", "lower"),
    Statistic("tpot_p90_s", "s", "p90 of TPOT", "lower"),
    Statistic("itl_p90_s", "s", "p90 of all gaps between tokens", "lower"),
    GAP,
    Statistic("tokens_per_s", "tokens/s", "tokens that came out", "higher"),
)
