"""A choice of policies in the words of real systems: their flags, and what they have no word for."""
