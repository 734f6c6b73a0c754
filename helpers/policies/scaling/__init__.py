"""How many workers a fleet has, and in which role: thresholds, a planner for an SLA, changes of role."""
