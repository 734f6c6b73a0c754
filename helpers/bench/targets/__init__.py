"""Questions that are put to policies: hypothesis, workload and statistics written down before anything runs."""
