"""The command that serves a model to clients."""
