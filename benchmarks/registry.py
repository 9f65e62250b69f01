"""What is measured: an operation, its implementations and the shapes that cover its regimes."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kempe_nb import dispatch

DEVICES = ("cpu", "cuda")
#: Names of implementations that are names of compilers, and where these compile for.
PROPER = {"numba": "Numba", "triton": "Triton"}
ONLY_ON = {"numba": ("cpu",), "triton": ("cuda",)}

#: The named sizes of a shape, such as {"atoms": 1_000_000, "seeds": 1}.
Sizes = Mapping[str, float]


def no_obstacle(sizes: Sizes, device: str) -> str:
    """Say that nothing keeps an implementation from running."""
    return ""


def cpp_obstacle(sizes: Sizes, device: str) -> str:
    """Say what keeps torch.compile from running."""
    if device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "torch.compile needs a C++ compiler on a CPU"
    return ""


def calling(function: Callable, inputs: Callable, *, compiled: bool = False) -> Callable:
    """Return the `prepare` of an implementation that is one function of the inputs."""

    def prepare(sizes: Sizes, dtype: str, device: str) -> Callable[[], object]:
        arguments, call = inputs(sizes, dtype, device), function
        if compiled:
            # Else the shapes before would use up the recompilations, and the rest would run
            # eagerly.
            torch._dynamo.reset()
            call = torch.compile(function, dynamic=False)
        return lambda: call(*arguments)

    return prepare


@dataclass(frozen=True)
class Case:
    """One shape, with a version of it that is small enough to check every implementation on.

    `over_a_minute_on_cpu` names the implementations of which one call takes more than about 60 s on
    a CPU; they are not run there, and the table says so.
    """

    sizes: Sizes
    small: Sizes
    over_a_minute_on_cpu: tuple[str, ...] = ()


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Attributes
    ----------
    name : str
        As the page shows it; ours begin with "kempe_nb".
    prepare : callable
        `prepare(sizes, dtype, device)` makes the inputs, untimed, and returns the call that is
        timed: no arguments; it returns a tensor, an array, or a tuple of them.
    devices : tuple of str
        Where it runs.
    exact : bool
        Whether it promises the bits of the definition.
    eager : bool
        Whether its work on a CPU is a sequence of PyTorch operations, which can be counted.
    obstacle : callable
        `obstacle(sizes, device)` says in words why it cannot run there, or nothing.
    """

    name: str
    prepare: Callable[[Sizes, str, str], Callable[[], object]]
    devices: tuple[str, ...] = DEVICES
    exact: bool = False
    eager: bool = True
    obstacle: Callable[[Sizes, str], str] = no_obstacle


def ours(
    declared: dispatch.Operation,
    prepare: Callable[[str], Callable],
    *,
    uncounted: tuple[str, ...] = (),
) -> tuple[Implementation, ...]:
    """Return the implementations that an operation declares, the definition first.

    Parameters
    ----------
    declared : kempe_nb.dispatch.Operation
        What the operation's own module says of it.
    prepare : callable
        `prepare(impl)` is the `prepare` of one of its implementations.
    uncounted : tuple of str
        Those whose work on a CPU cannot be counted, besides compiled code, and what has the same
        bits everywhere: its definition is written in NumPy, and runs on a CPU alone.
    """
    return tuple(
        Implementation(
            f"kempe_nb {PROPER.get(name, name)}",
            prepare(name),
            _devices(name, declared.exact),
            exact=declared.exact,
            eager=not declared.exact and name not in {*uncounted, *ONLY_ON},
        )
        for name in declared.implementations
    )


def _devices(implementation: str, exact: bool) -> tuple[str, ...]:
    if implementation in ONLY_ON:
        return ONLY_ON[implementation]
    return ("cpu",) if exact else DEVICES


@dataclass(frozen=True)
class Operation:
    """One operation: everything that the benchmark knows about it.

    Attributes
    ----------
    name : str
        The name of its module in `kempe_nb.kernels`, where it is declared, or in
        `kempe_nb.methods`; and of its tests.
    dtypes : tuple of str
        The dtypes that each case is measured in.
    cases : tuple of Case
        From the smallest to the largest.
    implementations : tuple of Implementation
        The first one is the definition.
    minimum_bytes : callable
        `minimum_bytes(sizes, dtype)`: each input read once and each output written once.
    check : callable
        `check(found, sizes, dtype)` takes the outputs as NumPy arrays and says in words what is
        wrong with them, or nothing. It holds the peers, whose random numbers are others, to the
        mathematics of the operation.
    """

    name: str
    dtypes: tuple[str, ...]
    cases: tuple[Case, ...]
    implementations: tuple[Implementation, ...]
    minimum_bytes: Callable[[Sizes, str], int]
    check: Callable[[list[np.ndarray], Sizes, str], str]

    def on(self, device: str) -> tuple[Implementation, ...]:
        """Return the implementations that run on a kind of device."""
        return tuple(each for each in self.implementations if device in each.devices)


@dataclass(frozen=True)
class Combination:
    """One row to be: an implementation of an operation on a case, in a dtype, on a device."""

    operation: Operation
    implementation: Implementation
    case: Case
    dtype: str
    device: str

    @property
    def why_not(self) -> str:
        """Why it is not measured, or nothing."""
        if self.device == "cpu" and self.implementation.name in self.case.over_a_minute_on_cpu:
            return "over 60 s"
        return self.implementation.obstacle(self.case.sizes, self.device)

    def prepare(self) -> Callable[[], object]:
        """Make the inputs and return the call that is measured."""
        return self.implementation.prepare(self.case.sizes, self.dtype, self.device)


def combinations(operation: Operation, device: str, *, first_case: bool) -> list[Combination]:
    """Return all combinations of an operation on a device, or those of its first case."""
    return [
        Combination(operation, implementation, case, dtype, device)
        for case in operation.cases[: 1 if first_case else None]
        for dtype in operation.dtypes
        for implementation in operation.on(device)
    ]


def shape_text(sizes: Sizes) -> str:
    """Return the sizes as one word of text: "atoms=1000000 seeds=1"."""
    return " ".join(f"{name}={value}" for name, value in sizes.items())


def within_five_errors(name: str, found, expected, variance, repetitions: int) -> str:
    """Say where a mean over repetitions misses its expectation by more than 5 standard errors.

    Parameters
    ----------
    found, expected, variance : float or arrays that broadcast
        The mean, its expectation, and the variance of one repetition.
    """
    found, expected, variance = np.broadcast_arrays(*np.atleast_1d(found, expected, variance))
    distance = np.abs(found - expected)
    allowed = 5 * np.sqrt(variance / repetitions)
    worst = int(np.argmax(distance - allowed))
    # Sums of float64 differ in their last digits even where nothing is random.
    if distance[worst] <= allowed[worst] + 1e-12 * abs(expected[worst]):
        return ""
    return (
        f"{name} is {found[worst]:.6g}; expected is {expected[worst]:.6g} "
        f"up to 5 standard errors, {allowed[worst]:.2g}"
    )
