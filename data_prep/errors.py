"""The exception for invalid input. The command line prints its message on one line and exits with code 2."""


class InputError(ValueError):
    """The user's input is invalid. The message names the key or file, the value found and the values accepted."""
