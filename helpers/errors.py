"""The exception for bad input, and the one for a process that failed."""


class InputError(ValueError):
    """Input from a person that cannot be used.

    The message is one clear sentence: what is wrong, where (file, line, field, flag),
    and what to do about it. The command line prints it alone and exits with code 2.
    """


class WorkerError(RuntimeError):
    """A worker process failed in a way that the cluster cannot make good; the command line exits with code 1."""
