"""One module an explorer: its controls, and the computation behind its figures. `registry` finds them by name."""
