"""Formulas that predict: the time of a step, of a transfer, the memory that is left for KV."""
