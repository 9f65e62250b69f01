"""A meter of memory traffic: what every PyTorch operation reads and writes, on any device.

Most operations of a network are limited by memory: a GPU waits for bytes, not for arithmetic. The
meter shows that without a GPU, because the bytes follow from shapes and dtypes alone:

    with Traffic() as traffic:
        c = a + b
    traffic.passes(c)  # 3.0: a is read, b is read, c is written

What counts. Every ATen operation reads the tensors that go in and writes those that come out.

* An element counts once for every argument that holds it, whatever the strides: an expanded tensor
  counts what it was expanded from, a slice what it holds, overlapping windows at most the memory
  they span. So `a * a` reads `a` twice.
* An argument counts in full, also where an operation needs only a part of it; but `index_select`,
  `gather` and `embedding` read no more elements than they return.
* An operation in place reads and writes its tensor. With `out=`, and where the values before do not
  matter (`fill_`, `copy_`, `normal_`, ...), it only writes. `zeros` writes, `empty` does not.
* Views, questions about shapes and Python's numbers move nothing.
* Autograd's operations count like all others: backward, double backward, `torch.func`.

The reads of one tensor, and of its views, can be asked for by a name of its own:

    with Traffic(features=h) as traffic:
        h.mean(0), h.std(0)
    traffic.reads("features")  # 2.0

How to read it. Each operation is taken by itself, as if no cache remembered the one before, so the
sum is an upper bound where each operation needs every element once. An operation that goes over its
data repeatedly (a sort, a product of large matrices) moves more than it counts.

What is not seen: NumPy, kernels that PyTorch does not know as operations (Triton, when launched
directly), other threads, and the inside of an operation: a custom operation counts as one kernel.
Under the meter `torch.compile` may give up and run eagerly, so it cannot measure compiled code.
"""

import re
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Operations that take a shape and a dtype from `self` or `other`, and not their values.
_SHAPE_ONLY = re.compile(
    r"aten::(_?new_\w+|\w+_like|(_foreach_)?(fill|zero|copy)_?|normal_|normal_functional|bernoulli_"
    r"|(cauchy|exponential|geometric|log_normal|random|uniform)_?)(\.\w+)?"
    r"|aten::bernoulli\.(p|Tensor|float)\w*"
)
#: Operations that read only the elements of their first argument that they return.
_PICKING = re.compile(r"aten::(index_select|gather|embedding)(\.\w+)?")
#: Operations whose results hold no values yet.
_UNWRITTEN = re.compile(r"aten::(_?empty_?\w*|new_empty\w*|_efficientzerotensor)(\.\w+)?")


class Row(NamedTuple):
    """What one kind of operation has moved."""

    operation: str
    launches: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class Traffic:
    """Counts the bytes of all operations in a `with` block of this thread; see the module.

    A second block with the same meter goes on counting; a meter inside another counts as well. At
    the end of a notebook's cell a meter shows its table.

    Raises
    ------
    RuntimeError
        From a block inside a block of the same meter, which would count twice.
    ValueError
        In the block, from an operation on tensors that are not strided (sparse, for example).
    """

    def __init__(self, **watched: torch.Tensor):
        self._rows: dict[str, Row] = {}
        self._watched = {name: _Watched(tensor) for name, tensor in watched.items()}
        self._meter: _Meter | None = None

    def __enter__(self) -> "Traffic":
        if self._meter is not None:
            raise RuntimeError("this Traffic counts already; nest another one, Traffic()")
        self._meter = _Meter(self._rows, list(self._watched.values()))
        self._meter.__enter__()
        return self

    def __exit__(self, *error) -> None:
        meter, self._meter = self._meter, None
        meter.__exit__(*error)

    @property
    def launches(self) -> int:
        """Operations that moved bytes; each would be a kernel launch on a GPU, or several."""
        return sum(row.launches for row in self._rows.values())

    @property
    def bytes_read(self) -> int:
        """Bytes of all tensors that went into operations."""
        return sum(row.bytes_read for row in self._rows.values())

    @property
    def bytes_written(self) -> int:
        """Bytes of all tensors that operations made or changed."""
        return sum(row.bytes_written for row in self._rows.values())

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    def passes(self, tensor: torch.Tensor) -> float:
        """Return how often the traffic passes over a tensor: all bytes over the tensor's bytes.

        Raises
        ------
        ValueError
            If the tensor holds no bytes.
        """
        if not tensor.numel():
            shape = tuple(tensor.shape)
            raise ValueError(f"tensor has shape {shape}; accepted is one with elements")
        return self.bytes / sum(map(_bytes, _tensors(tensor, "passes")))

    def reads(self, name: str) -> float:
        """Return how often a watched tensor was read: bytes read of its memory over its own bytes.

        Raises
        ------
        ValueError
            If no tensor of this name is watched, or if it holds no bytes.
        """
        if name not in self._watched:
            known = ", ".join(self._watched) or "none"
            raise ValueError(f"name is {name!r}; watched are {known}")
        watched = self._watched[name]
        if not watched.tensor.numel():
            raise ValueError(f"{name} has shape {tuple(watched.tensor.shape)}; it holds no bytes")
        return watched.bytes_read / _bytes(watched.tensor)

    def table(self) -> list[Row]:
        """Return one row for each ATen operation, the one with the most bytes first."""
        return sorted(self._rows.values(), key=lambda row: -row.bytes_read - row.bytes_written)

    def __repr__(self) -> str:
        total = Row("total", self.launches, self.bytes_read, self.bytes_written)
        cells = [("operation", "launches", "bytes read", "bytes written")]
        cells += [(name, *(f"{n:,}" for n in numbers)) for name, *numbers in (*self.table(), total)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])])
            for name, *numbers in cells
        )


class _Watched:
    """A tensor and the bytes that were read of its memory, by whatever view of it."""

    def __init__(self, tensor: torch.Tensor):
        (self.tensor,) = _tensors(tensor, "watched")
        self.bytes_read = 0

    def add(self, operands: list["_Operand"], reads: list[int]) -> None:
        """Add what an operation has read of it."""
        memory = self.tensor.untyped_storage()._cdata
        for each, size in zip(operands, reads, strict=True):
            if each.tensor.untyped_storage()._cdata == memory:
                self.bytes_read += size


class _Meter(TorchDispatchMode):
    """Adds what every operation moves to the row of its name."""

    def __init__(self, rows: dict[str, Row], watched: list[_Watched]):
        super().__init__()
        self._rows = rows
        self._watched = watched

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        operands = list(_operands(func, args, kwargs))
        # Measured before the call, which may resize what it writes.
        held = [_bytes(each.tensor) if each.is_read else 0 for each in operands]
        result = func(*args, **kwargs)
        reads = [each.limit(size, result) for each, size in zip(operands, held, strict=True)]
        changed = [each.tensor for each in operands if each.is_written]
        made = _made([each.tensor for each in operands], _tensors(result, func))
        if _moves(func, operands, made + changed):
            written = changed if _UNWRITTEN.fullmatch(func.name()) else made + changed
            self._add(str(func.overloadpacket), sum(reads), sum(map(_bytes, written)))
            for watched in self._watched:
                watched.add(operands, reads)
        return result

    def _add(self, name: str, read: int, written: int) -> None:
        if read or written:
            _, launches, before, after = self._rows.get(name, Row(name))
            self._rows[name] = Row(name, launches + 1, before + read, after + written)


class _Operand(NamedTuple):
    tensor: torch.Tensor
    is_read: bool
    is_written: bool
    is_picked_from: bool

    def limit(self, size: int, result: object) -> int:
        """Return the bytes read of those held: where rows are picked, no more than returned."""
        if not self.is_picked_from:
            return size
        return min(size, result.numel() * self.tensor.element_size())


def _operands(func, args, kwargs) -> Iterator[_Operand]:
    """Return the tensors among the arguments, and what the schema says is done with each."""
    named = {argument.name: argument for argument in func._schema.arguments}
    values = {**dict(zip(named, args, strict=False)), **kwargs}
    shape_only = _SHAPE_ONLY.fullmatch(func.name())
    picking = _PICKING.fullmatch(func.name()) is not None
    for name, value in values.items():
        argument = named[name]
        is_read = not argument.is_out and not (shape_only and name in ("self", "other"))
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in _tensors(value, func):
            yield _Operand(tensor, is_read, is_written, picking and name in ("self", "weight"))


def _tensors(value: object, func: object) -> list[torch.Tensor]:
    """Return the tensors in an argument or a result of `func`; refuse what is not strided."""
    found = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    for tensor in found:
        if tensor.layout != torch.strided:
            layout = tensor.layout
            raise ValueError(f"{func} has a tensor of layout {layout}; accepted is torch.strided")
    return found


def _bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's distinct elements."""
    if tensor.numel() == 0:
        return 0
    steps = [(n, stride) for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    span = 1 + sum((n - 1) * stride for n, stride in steps)
    return min(prod(n for n, _ in steps), span) * tensor.element_size()


def _made(operands: list[torch.Tensor], results: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the results that have memory of their own; a view has that of an operand."""
    held = {each.untyped_storage()._cdata for each in operands}
    return [each for each in results if each.untyped_storage()._cdata not in held]


def _moves(func, operands: list[_Operand], results: list[torch.Tensor]) -> bool:
    """Return whether an operation touches elements, and not only shapes, strides or storages."""
    if torch.Tag.inplace_view in func.tags or func.namespace == "prims":
        return False
    if not results:
        return torch.Tag.data_dependent_output in func.tags
    # To learn the shape of a result, PyTorch itself goes to the meta device, and there to prims.
    leaves_for_meta = all(each.is_meta for each in results) and bool(operands)
    return not leaves_for_meta or any(each.tensor.is_meta for each in operands)


def _is_composite(func) -> bool:
    """Return whether an operation is only made of others; inference mode leaves them whole."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return func.namespace != "prim" and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), key
    )
