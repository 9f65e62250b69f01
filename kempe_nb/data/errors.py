"""What goes wrong with data, and how it is said."""


class DataError(RuntimeError):
    """A data set is missing, damaged or cannot be fetched; the message says what to do."""


def bad_argument(argument: str, value: object, accepted: str) -> ValueError:
    """Return the error that names an argument and what is accepted for it."""
    return ValueError(f"{argument} is {value!r}; accepted: {accepted}")
