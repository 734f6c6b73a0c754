"""Whether a request is taken in, and when: one file for each idea."""
