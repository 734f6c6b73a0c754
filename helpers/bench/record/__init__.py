"""Recordings of this machine: which measurements, in which order, kept how. What measures is elsewhere."""
