"""A run, recorded or simulated for the purpose, in the words of five tools."""
