"""A guard around Triton's interpreter: every address is checked, every byte is counted.

The interpreter itself writes to any address it is given. Under the guard a kernel may touch the
elements of the tensors that it was launched with, from the first to the last, and nothing else.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder


class OutOfBounds(Exception):
    """A kernel touched memory that it was not launched with."""


@dataclass
class Moved:
    """Bytes read and written by loads and stores, and atomic operations; by argument's name."""

    read: Counter = field(default_factory=Counter)
    written: Counter = field(default_factory=Counter)
    atomics: Counter = field(default_factory=Counter)
    #: First and last address (exclusive) of each tensor of the running launch.
    spans: dict = field(default_factory=dict)

    def declare(self, **tensors: torch.Tensor) -> None:
        """Let the kernel touch these tensors alone."""
        self.spans = {name: _span(tensor) for name, tensor in tensors.items() if tensor.numel()}

    def add(self, counts: Counter, program, pointers, mask, unit: int | None = None) -> None:
        """Add one access to `counts`, `unit` for each address, else the size of its element."""
        addresses = np.broadcast_to(pointers.data, np.shape(mask.data))[mask.data]
        size = pointers.get_element_ty().primitive_bitwidth // 8
        strangers = np.ones(addresses.shape, dtype=bool)
        for name, (start, stop) in self.spans.items():
            inside = (addresses >= start) & (addresses <= stop - size)
            strangers &= ~inside
            if touched := int(inside.sum()):
                counts[name] += touched * (size if unit is None else unit)
        if strangers.any():
            raise OutOfBounds(self._place(int(addresses[strangers][0]), program))

    def _place(self, address: int, program) -> str:
        distances = {
            name: max(start - address, address - stop) for name, (start, stop) in self.spans.items()
        }
        name = min(distances, key=distances.get, default="any tensor")
        near = f"{distances.get(name, 0)} bytes outside {name}"
        return f"program {tuple(program)} touches address {address:#x}, {near}"


@contextlib.contextmanager
def guarded() -> Iterator[Moved]:
    """Check and count every access of the kernels that are launched in a `with` block."""
    moved = Moved()
    with contextlib.ExitStack() as patches:
        _watch(patches, InterpreterBuilder, "create_masked_load", _before_load(moved))
        _watch(patches, InterpreterBuilder, "create_masked_store", _before_store(moved))
        _watch(patches, InterpreterBuilder, "create_atomic_rmw", _before_atomic(moved))
        _watch(patches, GridExecutor, "__call__", _before_launch(moved))
        yield moved


def _before_load(moved: Moved):
    def check(builder, pointers, mask, *_):
        moved.add(moved.read, builder.grid_idx, pointers, mask)

    return check


def _before_store(moved: Moved):
    def check(builder, pointers, value, mask, *_):
        moved.add(moved.written, builder.grid_idx, pointers, mask)

    return check


def _before_atomic(moved: Moved):
    def check(builder, operation, pointers, value, mask, *_):
        moved.add(moved.atomics, builder.grid_idx, pointers, mask, unit=1)

    return check


def _before_launch(moved: Moved):
    def declare(executor, *args, **kwargs):
        named = dict(zip(executor.arg_names, args, strict=False)) | kwargs
        moved.declare(**{k: v for k, v in named.items() if isinstance(v, torch.Tensor)})

    return declare


def _watch(patches: contextlib.ExitStack, owner: type, name: str, before) -> None:
    """Call `before` with the arguments of a method, then the method, until `patches` closes."""
    method = getattr(owner, name)

    def watched(*args, **kwargs):
        before(*args, **kwargs)
        return method(*args, **kwargs)

    setattr(owner, name, watched)
    patches.callback(setattr, owner, name, method)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses of the first element and behind the last one."""
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (reach + 1) * tensor.element_size()
