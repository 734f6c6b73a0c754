"""The one exception for bad input."""


class InputError(ValueError):
    """Input from a person that cannot be used.

    The message is one clear sentence: what is wrong, where (file, line, field, flag),
    and what to do about it. The command line prints it alone and exits with code 2.
    """
