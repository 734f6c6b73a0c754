"""From the event log of a run to TTFT, TPOT, ITL, goodput, and what may be said about them."""
