"""Which implementation of an operation runs, and why.

Every operation has a *definition*, written in PyTorch or NumPy, which is the specification and runs
everywhere; and it may have a *triton* implementation for CUDA tensors. The rule:

* a CPU tensor takes the definition; a CUDA tensor takes Triton where it can run, and otherwise the
  definition;
* whoever asks for an implementation gets it or an error, never another one: by the argument `impl`
  of the operation, else by the context manager `use`, else by the variable `KEMPE_NB_IMPL`.

Nothing here imports Triton before a CUDA tensor is at hand.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch

#: All names of implementations; an operation accepts those that it has.
IMPLEMENTATIONS = ("definition", "triton")
#: The environment variable that chooses for a whole run.
VARIABLE = "KEMPE_NB_IMPL"
#: The first and the last minor version of Triton that the kernels are tested with.
TESTED_TRITON = ((3, 6), (3, 9))
#: The lowest compute capability that the kernels are compiled for in the tests.
LOWEST_CAPABILITY = (8, 0)


class ImplementationUnavailable(RuntimeError):
    """The implementation that was asked for cannot run this call."""


@dataclass(frozen=True)
class Choice:
    """The implementation that a call takes, and the reason in words."""

    operation: str
    implementation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.implementation} ({self.reason})"


class _Asked(Exception):
    """Carries the choice out of an operation that was only asked about."""

    def __init__(self, choice: Choice):
        self.choice = choice


_only_asking: ContextVar[bool] = ContextVar("only_asking", default=False)
_in_use: ContextVar[str | None] = ContextVar("in_use", default=None)


def which(operation: Callable, *args, **kwargs) -> None:
    """Print the implementation that `operation(*args, **kwargs)` would run, and why.

    The arguments are checked as in the call itself; nothing is computed.

    Raises
    ------
    TypeError
        If `operation` is not one of the package's operations.
    """
    token = _only_asking.set(True)
    try:
        operation(*args, **kwargs)
    except _Asked as answer:
        print(answer.choice)
    else:
        name = getattr(operation, "__name__", repr(operation))
        raise TypeError(f"operation is {name}; accepted are the operations of kempe_nb")
    finally:
        _only_asking.reset(token)


@contextlib.contextmanager
def use(implementation: str | None) -> Iterator[None]:
    """Choose the implementation of every operation in a `with` block; None takes the wish back.

    The block holds for the thread that runs it. A backward pass of CUDA tensors may run in another
    one, so an operation that calls others there must hand them its own choice as `impl`.
    """
    _known(implementation, "implementation", IMPLEMENTATIONS)
    token = _in_use.set(implementation)
    try:
        yield
    finally:
        _in_use.reset(token)


def choose(
    operation: str,
    device: torch.device,
    impl: str | None = None,
    *,
    available: tuple[str, ...] = IMPLEMENTATIONS,
    obstacle: str | None = None,
) -> Choice:
    """Return the implementation for a call of `operation` on `device`.

    Parameters
    ----------
    impl : str, optional
        What the caller asked for.
    available : tuple of str
        The implementations that the operation has.
    obstacle : str, optional
        Why the operation's Triton code cannot take these arguments, if it cannot.

    Raises
    ------
    ValueError
        For an implementation that does not exist.
    ImplementationUnavailable
        If Triton was asked for and cannot run here.
    """
    wanted, asker = _request(impl, available)
    if wanted == "definition":
        choice = Choice(operation, "definition", f"asked for by {asker}")
    elif "triton" not in available:
        choice = Choice(operation, "definition", "it has no other implementation")
    else:
        # Only now: the definition needs neither Triton nor a GPU to be in order.
        obstacle = obstacle or triton_obstacle(device, asked=wanted == "triton")
        choice = _triton_unless(obstacle, operation, device, asker)
    if _only_asking.get():
        raise _Asked(choice)
    return choice


def _triton_unless(
    obstacle: str | None, operation: str, device: torch.device, asker: str
) -> Choice:
    """Return Triton, or with an obstacle the definition, or an error if somebody asked."""
    if obstacle and asker:
        raise ImplementationUnavailable(
            f"{operation}: {asker} asks for triton, which cannot run here: {obstacle}"
        )
    if obstacle:
        return Choice(operation, "definition", obstacle)
    reason = f"asked for by {asker}" if asker else f"the tensors are on {device}"
    return Choice(operation, "triton", reason)


def triton_obstacle(device: torch.device, *, asked: bool = False) -> str | None:
    """Return why Triton cannot run on `device`, or None if it can.

    On CPU tensors Triton runs in its interpreter only (TRITON_INTERPRET=1), and only when it was
    asked for.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not (device.type == "cpu" and interpreted and asked):
        return f"the tensors are on {device}; Triton takes CUDA tensors"
    version = triton_version()
    first, last = (".".join(map(str, end)) for end in TESTED_TRITON)
    if version is None:
        return f"Triton is not installed; tested are versions {first} to {last}"
    minor = re.match(r"(\d+)\.(\d+)", version)
    if not minor or not TESTED_TRITON[0] <= tuple(map(int, minor.groups())) <= TESTED_TRITON[1]:
        return f"Triton is version {version}; tested are versions {first} to {last}"
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < (
        LOWEST_CAPABILITY
    ):
        return f"{device} has compute capability {found}; tested are {LOWEST_CAPABILITY} and later"
    return None


def triton_version() -> str | None:
    """Return the version of the installed Triton, or None."""
    try:
        import triton
    except ImportError:
        return None
    # A folder named triton can be imported too, and has no version.
    return getattr(triton, "__version__", None)


def _request(impl: str | None, available: tuple[str, ...]) -> tuple[str | None, str]:
    """Return what was asked for, if anything, and by whom."""
    variable = os.environ.get(VARIABLE) or None
    asked = ((impl, "impl"), (_in_use.get(), "use()"), (variable, VARIABLE))
    for wanted, asker in asked:
        if wanted is not None:
            _known(wanted, asker, available)
            return wanted, asker
    return None, ""


def _known(wanted: object, name: str, accepted: tuple[str, ...]) -> None:
    if wanted is not None and wanted not in accepted:
        raise ValueError(f"{name} is {wanted!r}; accepted are {', '.join(accepted)}, or None")
