"""One module for each operation; its `OPERATION` says what is measured, and beside what."""

import importlib
import pkgutil

from benchmarks.registry import Operation


def names() -> list[str]:
    """Return the names of all operations."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Operation:
    """Return an operation by its name."""
    return importlib.import_module(f"{__name__}.{name}").OPERATION
