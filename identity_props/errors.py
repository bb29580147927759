"""What can go wrong at the public boundary: each a one-line message with an exit code."""


class InputError(ValueError):
    """Something given is not valid; the message says what was given and what would be valid."""

    exit_code = 2


class MissingError(RuntimeError):
    """The device, data or package asked for is not there; the message says how to get it."""

    exit_code = 3
