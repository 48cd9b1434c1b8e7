"""The exception for bad input. The command line prints it as one line and exits with code 2."""


class InputError(ValueError):
    """The user's input cannot be used. The message names the place, what was found and what is accepted."""
