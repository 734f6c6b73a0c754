"""How fast the engine is: floors, its own parts, and other engines on the same device in the same run."""
