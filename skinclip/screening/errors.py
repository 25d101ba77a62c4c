"""The error of a screening run whose message is for whoever started it."""


class ScreeningError(ValueError):
    """A screening that cannot start or go on; the message says what to do."""
