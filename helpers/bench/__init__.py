"""Speed is measured here, never by a timed test: each figure beside a peer or a goal, with N and spread."""
