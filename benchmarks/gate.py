"""Correctness first: an operation is measured only after its tests and its checks are green."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.registry import Implementation, Operation

ROOT = Path(__file__).parent.parent


class Red(Exception):
    """A test or a check failed; nothing is measured."""


def pass_gate(operation: Operation, device: str) -> None:
    """Run the tests of an operation, and check every implementation on every small case.

    Raises
    ------
    Red
        For the first test or implementation that fails.
    """
    for file in test_files(operation.name, device):
        _run_tests(file)
    for small, dtype in small_cases(operation):
        definition = outputs(operation.implementations[0], small, dtype, "cpu")
        for implementation in operation.on(device):
            if implementation.obstacle(small, device):
                continue
            found = outputs(implementation, small, dtype, device)
            fault = operation.check(found, small, dtype)
            if implementation.exact and not fault:
                fault = difference(found, definition)
            if fault:
                raise Red(f"{operation.name}: {implementation.name} at {small}, {dtype}: {fault}")


def test_files(name: str, device: str) -> list[Path]:
    """Return the test files that stand before the benchmark of an operation, or of a method.

    What holds for all operations is checked by the gate itself.
    """
    kernels, method = Path("tests") / "kernels", Path("tests") / "methods" / f"test_{name}.py"
    if (ROOT / method).is_file():
        return [method]
    files = [kernels / "definition" / f"test_{name}.py"]
    own = kernels / "gpu" / f"test_gpu_{name}.py"
    return [*files, own] if device == "cuda" and (ROOT / own).is_file() else files


def _run_tests(file: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=no", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    # A file whose tests were all left out is green for pytest; it has shown nothing.
    if ran.returncode or " passed" not in ran.stdout:
        raise Red(f"{file} is not green\n{ran.stdout}{ran.stderr}".rstrip())


def small_cases(operation: Operation) -> list[tuple[dict, str]]:
    """Return the small versions of the cases, each once, with every dtype."""
    small = []
    for case in operation.cases:
        if dict(case.small) not in small:
            small.append(dict(case.small))
    return [(sizes, dtype) for sizes in small for dtype in operation.dtypes]


def outputs(implementation: Implementation, sizes, dtype: str, device: str) -> list[np.ndarray]:
    """Return what an implementation computes, as NumPy arrays."""
    found = implementation.prepare(sizes, dtype, device)()
    parts = found if isinstance(found, tuple) else (found,)
    return [np.asarray(p.cpu() if isinstance(p, torch.Tensor) else p) for p in parts]


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> str:
    """Say how outputs differ from those of the definition, or nothing."""
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return (
                f"output {index} is {one.dtype} {one.shape}; "
                f"the definition's is {other.dtype} {other.shape}"
            )
        if differing := int((one != other).sum()):
            return f"output {index} differs from the definition in {differing} of {one.size} values"
    return ""
