"""Which implementation of an operation runs, and why; and what an operation says of itself.

Every operation has a *definition*, written in PyTorch or NumPy, which is the specification and runs
everywhere, and it may have others. Its module declares them once, as an `Operation`, and whoever
needs to know of operations reads that: the public functions, the tests, the benchmarks, the pages
of the book. The rule:

* the first implementation that the operation declares and that can take the call runs it, and
  otherwise the definition: on CUDA tensors Triton, on a CPU Numba where there is one;
* whoever asks for an implementation by the argument `impl` gets it or an error, never another one;
* the context manager `use`, and then the variable `KEMPE_NB_IMPL`, speak in the same way to all
  operations that have an implementation of this name; the others go by the rule.

Nothing here imports Triton before a CUDA tensor is at hand, and nothing here imports Numba.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import MappingProxyType

import torch

from kempe_nb.checks import checked_choice

#: What the names of implementations mean, in every operation.
IMPLEMENTATIONS = {
    "definition": "the specification, in PyTorch or NumPy, on any device",
    "contraction": "another way to compute the same, for a narrower class of models",
    "numba": "compiled code for CPU tensors",
    "triton": "compiled code for CUDA tensors",
}
#: The environment variable that chooses for a whole run.
VARIABLE = "KEMPE_NB_IMPL"
#: The first and the last minor version of Triton that the kernels are tested with.
TESTED_TRITON = ((3, 6), (3, 9))
#: The first and the last minor version of Numba that the kernels are tested with.
TESTED_NUMBA = ((0, 68), (0, 68))
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

    The arguments are checked as in the call itself, as far as no pass over the data is needed for
    it; nothing is computed. A method answers with the first operation that it would run.

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
    """Choose the implementation of every operation that has it in a `with` block.

    None takes the wish of an outer block back.

    The block holds for the thread that runs it. A backward pass of CUDA tensors may run in another
    one, so an operation that calls others there must hand them its own choice as `impl`.
    """
    _known(implementation, "implementation", tuple(IMPLEMENTATIONS))
    token = _in_use.set(implementation)
    try:
        yield
    finally:
        _in_use.reset(token)


@dataclass(frozen=True)
class Operation:
    """What an operation of the package says of itself, in its own module, as `OPERATION`.

    Attributes
    ----------
    name : str
        That of its module, its tests, its benchmark and its page.
    dtypes : tuple of torch.dtype
        Of the tensors that it takes, or of those that it makes where it takes none.
    minimum_bytes : callable
        From the sizes of a call, by name, to the bytes that must move: each input read once and
        each output written once; several numbers where they belong to several orders of
        derivatives.
    exact : bool
        Whether all implementations return the same bits, on every device.
    implementations : tuple of str
        The definition first, then the others in the order in which they are tried.
    functions : tuple of str
        The public functions; where none are named, one with the name of the operation.

    Raises
    ------
    ValueError
        For an implementation that `IMPLEMENTATIONS` does not explain, or none called definition.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    minimum_bytes: Callable[..., int | tuple[int, ...]]
    exact: bool = False
    implementations: tuple[str, ...] = ("definition", "triton")
    functions: tuple[str, ...] = ()

    def __post_init__(self):
        for implementation in self.implementations:
            checked_choice(implementation, "implementation", IMPLEMENTATIONS)
        if len(set(self.implementations)) < len(self.implementations):
            raise ValueError(f"implementations is {self.implementations}; accepted is each once")
        if self.implementations[:1] != ("definition",):
            raise ValueError(
                f"implementations is {self.implementations}; accepted is one that begins with "
                "'definition'"
            )
        object.__setattr__(self, "functions", self.functions or (self.name,))

    def choose(
        self,
        device: torch.device,
        impl: str | None = None,
        *,
        function: str | None = None,
        obstacles: Mapping[str, str | None] = MappingProxyType({}),
        reasons: Mapping[str, str] = MappingProxyType({}),
    ) -> Choice:
        """Return the implementation for a call on `device`.

        Parameters
        ----------
        impl : str, optional
            What the caller asked for.
        function : str, optional
            The public function that is called, where the operation has several.
        obstacles : mapping
            By the name of an implementation: why it cannot take these arguments, if it cannot. What
            the device or the installation forbids is known here.
        reasons : mapping
            By the name of an implementation: why it is the one, if nobody asked for it; by default
            the device of the tensors.

        Raises
        ------
        ValueError
            For an implementation that the operation does not have, or that does not exist.
        ImplementationUnavailable
            If one was asked for and cannot run here.
        """
        name = function or self.name
        for implementation in (*obstacles, *reasons):
            checked_choice(implementation, "implementation", self.implementations)
        wanted, asker = _request(impl, self.implementations)
        found = []
        for implementation in self.implementations[1:] if wanted is None else (wanted,):
            # Only now: the definition needs neither Triton nor a GPU to be in order.
            obstacle = obstacles.get(implementation) or _hardware_obstacle(
                implementation, device, asked=wanted is not None
            )
            if obstacle is None:
                own = reasons.get(implementation, f"the tensors are on {device}")
                why = f"asked for by {asker}" if asker else own
                return _chosen(Choice(name, implementation, why))
            found.append(obstacle)
        if wanted is not None:
            raise ImplementationUnavailable(
                f"{name}: {asker} asks for {wanted}, which cannot run here: {found[0]}"
            )
        why = "; ".join(found) or "it has no other implementation"
        return _chosen(Choice(name, "definition", why))


def _chosen(choice: Choice) -> Choice:
    """Return a choice, or hand it to whoever only asks."""
    if _only_asking.get():
        raise _Asked(choice)
    return choice


def _hardware_obstacle(implementation: str, device: torch.device, *, asked: bool) -> str | None:
    """Return what keeps every implementation of a name from running on a device, if anything."""
    if implementation == "triton":
        return triton_obstacle(device, asked=asked)
    return numba_obstacle(device) if implementation == "numba" else None


def triton_obstacle(device: torch.device, *, asked: bool = False) -> str | None:
    """Return why Triton cannot run on `device`, or None if it can.

    On CPU tensors Triton runs in its interpreter only (TRITON_INTERPRET=1), and only when it was
    asked for.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not (device.type == "cpu" and interpreted and asked):
        return f"the tensors are on {device}; Triton takes CUDA tensors"
    if obstacle := _untested("Triton", triton_version(), TESTED_TRITON):
        return obstacle
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < (
        LOWEST_CAPABILITY
    ):
        return f"{device} has compute capability {found}; tested are {LOWEST_CAPABILITY} and later"
    return None


def numba_obstacle(device: torch.device) -> str | None:
    """Return why Numba cannot run on `device` here and now, or None if it can.

    Compiled code is invisible to PyTorch: whoever records, transforms or counts the operations of a
    function would see nothing, and a recording would replay nothing.
    """
    if device.type != "cpu":
        return f"the tensors are on {device}; Numba takes CPU tensors"
    if observer := observed():
        return f"{observer}, and does not see into Numba"
    return _untested("Numba", numba_version(), TESTED_NUMBA)


def observed() -> str | None:
    """Return who records, transforms or counts the operations of PyTorch here and now, if anybody.

    Numbers may then stand for others, so nothing can be decided by what they are.
    """
    if torch.compiler.is_compiling():
        return "PyTorch compiles the call"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a transform of torch.func is active"
    keys = torch._C._TorchDispatchModeKey
    recorded = any(torch._C._get_dispatch_mode(key) for key in (keys.FAKE, keys.PROXY))
    if recorded or torch._C._len_torch_dispatch_stack():
        return "a dispatch mode of PyTorch is active"
    return None


def _untested(name: str, version: str | None, tested: tuple) -> str | None:
    """Return why an installed version of a compiler does not do, or None if it does."""
    first, last = (".".join(map(str, end)) for end in tested)
    told = f"are versions {first} to {last}" if first != last else f"is version {first}"
    if version is None:
        return f"{name} is not installed; tested {told}"
    minor = re.match(r"(\d+)\.(\d+)", version)
    if minor and tested[0] <= tuple(map(int, minor.groups())) <= tested[1]:
        return None
    return f"{name} is version {version}; tested {told}"


def numba_version() -> str | None:
    """Return the version of the installed Numba, or None; it is not imported, which takes long."""
    return _installed_version("numba")


@cache
def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
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
    if impl is not None:
        _known(impl, "impl", available)
        return impl, "impl"
    for wanted, asker in ((_in_use.get(), "use()"), (os.environ.get(VARIABLE) or None, VARIABLE)):
        if wanted is not None:
            _known(wanted, asker, tuple(IMPLEMENTATIONS))
            # Whoever speaks to all operations speaks to those that have what is named.
            if wanted in available:
                return wanted, asker
    return None, ""


def _known(wanted: object, name: str, accepted: tuple[str, ...]) -> None:
    if wanted is not None and wanted not in accepted:
        raise ValueError(f"{name} is {wanted!r}; accepted are {', '.join(accepted)}, or None")
