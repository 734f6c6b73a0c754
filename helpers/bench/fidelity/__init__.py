"""The simulator held against live clusters on this machine: calibrated on one slice, asked about others."""
