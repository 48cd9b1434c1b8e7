"""The one exception that stands for bad input; the command line prints it as a single line and exits with code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message says where, what was found and what is accepted."""
