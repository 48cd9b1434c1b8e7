"""The exception for invalid input. Commands print its message on one line and exit with code 2."""


class InputError(ValueError):
    """Raised for invalid user input. The message names the key or file, the value found there, and the accepted values."""
