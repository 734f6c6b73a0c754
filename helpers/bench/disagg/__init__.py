"""Prefill and decode apart, measured live: what a hand-off costs, what of it is hidden, and against what it is held."""
