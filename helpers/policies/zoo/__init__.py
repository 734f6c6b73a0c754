"""The routers of real systems, each with its published formula and defaults."""
