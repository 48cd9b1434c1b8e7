"""The exceptions for invalid input. A command that raises InputError prints the message on one line and exits with code 2."""


class InputError(ValueError):
    """Raised for invalid user input. The message names the key or file, the value found there, and the accepted values."""


class CannotResume(InputError):
    """Raised if the corpus itself is unusable. Once it is corrected, the build starts over instead of resuming."""
