"""One module for one operation: its mathematics, its definition, its derivatives, its function.

Each declares itself as `OPERATION`; see `kempe_nb.dispatch`. What several operations are made of
has a module here, too, and declares nothing.
"""

import pkgutil
from functools import cache
from importlib import import_module

from kempe_nb.dispatch import Operation


@cache
def names() -> tuple[str, ...]:
    """Return the names of all operations, in alphabetical order; this imports their modules."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if _declaration(name)))


def load(name: str) -> Operation:
    """Return what the operation of a name declares.

    Raises
    ------
    ValueError
        For a name that no operation has.
    """
    if name not in names():
        raise ValueError(f"operation is {name!r}; accepted are {', '.join(names())}")
    return _declaration(name)


def _declaration(module: str) -> Operation | None:
    return getattr(import_module(f"{__name__}.{module}"), "OPERATION", None)
