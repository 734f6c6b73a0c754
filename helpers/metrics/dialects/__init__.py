"""One run in the words of five tools: the same event log, under each tool's names and by its own definitions.

Each module has `METRICS`, what each name means, and `report(log, slos, clock)`, the values. `paces` sets the
definitions of the pace of decoding beside each other.
"""

from helpers.metrics.dialects import aiperf, guidellm, loadgen, mooncake, vllm
from helpers.metrics.dialects.pace import paces

__all__ = ["DIALECTS", "paces"]

DIALECTS = {
    "vLLM bench serve": vllm,
    "AIPerf": aiperf,
    "guidellm": guidellm,
    "MLPerf LoadGen": loadgen,
    "Mooncake": mooncake,
}
