"""What decides between workers: routing, admission, scaling. Deterministic: no clock, no I/O."""
