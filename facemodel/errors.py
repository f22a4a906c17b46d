"""The one exception that commands turn into a one-line message."""


class InputError(ValueError):
    """Something the user gave can't be used; the message names it and says what to do."""
