"""Functions of tensors recorded once as a list of operations, and made shorter.

A small network trained on ten images spends most of its time between operations: in Python, in
autograd's bookkeeping, and in computing the same thing once for every order of derivatives. PyTorch
can record what a function does, derivatives included, as a graph of its operations (`make_fx`).
Here the record is pruned:

* what is computed twice from the same arguments is computed once,
* a convolution's backward pass leaves out the derivatives that nobody uses,
* what nobody uses at all is dropped.

and replayed from then on. Numbers do not change: the same operations run on the same arguments.

What can be recorded: a function of tensors whose operations depend on shapes and dtypes only. A
branch on the value of a tensor is refused, and so is an operation whose result has a shape that
depends on values, like indexing with a mask; a number drawn from Python's or NumPy's generator is
recorded as it was the first time. Tensors from outside keep their place: writing into one is seen,
another one is not. The first call computes twice: to record, and to replay.
"""

from collections.abc import Callable

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

_BACKWARD_OF_CONVOLUTION = torch.ops.aten.convolution_backward.default


class Traced:
    """A function of tensors that is recorded for each layout of its arguments, and replayed.

    Parameters
    ----------
    function : callable
        Takes tensors; returns a tensor, or a tuple or list of them.
    """

    def __init__(self, function: Callable):
        self.function = function
        self._records: dict[tuple, GraphModule] = {}

    def __call__(self, *tensors: torch.Tensor):
        key = tuple((each.shape, each.stride(), each.dtype, each.device) for each in tensors)
        # The casts of autocast are recorded, too.
        key += tuple(torch.get_autocast_dtype(kind) for kind in _autocast(tensors))
        tensors = tuple(each.detach() for each in tensors)
        if key not in self._records:
            self._records[key] = record(self.function, *tensors)
        with torch.no_grad():
            return self._records[key](*tensors)


def record(function: Callable, *tensors: torch.Tensor) -> GraphModule:
    """Return the operations of `function(*tensors)`, pruned, as something that can be called."""
    module = make_fx(function)(*tensors)
    _refuse_shapes_that_depend_on_values(module.graph)
    if not any(_changes_something(node) for node in module.graph.nodes):
        merge_repetitions(module.graph)
    drop_unused_convolutions(module.graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def merge_repetitions(graph: Graph) -> None:
    """Let every node that repeats an earlier one, with the same arguments, be that one."""
    seen: dict[tuple, Node] = {}
    for node in list(graph.nodes):
        if node.op not in ("call_function", "get_attr") or _draws(node):
            continue
        key = node.op, node.target, _frozen(node.args), _frozen(node.kwargs)
        if key in seen:
            node.replace_all_uses_with(seen[key])
            graph.erase_node(node)
        else:
            seen[key] = node


def drop_unused_convolutions(graph: Graph) -> None:
    """Ask a convolution's backward pass for the derivatives alone that are used."""
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if node.target is _BACKWARD_OF_CONVOLUTION:
            used = {user.args[1] for user in node.users}
            wanted = [asked and i in used for i, asked in enumerate(node.args[10])]
            node.args = (*node.args[:10], wanted)


def _autocast(tensors) -> list[str]:
    """Return the kinds of devices, among those of the tensors, for which autocast is on."""
    kinds = {each.device.type for each in tensors}
    return [kind for kind in sorted(kinds) if torch.is_autocast_enabled(kind)]


def _refuse_shapes_that_depend_on_values(graph: Graph) -> None:
    for node in graph.nodes:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            continue
        if node.target is torch.ops.aten.index.Tensor:
            places = [each.meta["val"].dtype for each in node.args[1] if each is not None]
            if torch.bool not in places and torch.uint8 not in places:
                continue
        raise ValueError(
            f"function has the operation {node.target}, whose result has a shape that depends on "
            "values; accepted are operations whose shapes do not"
        )


def _changes_something(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _draws(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _frozen(value):
    """Return arguments as something that can be looked up.

    Numbers of two types stay apart, and so do 0.0 and -0.0.
    """
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple((key, _frozen(each)) for key, each in sorted(value.items()))
    return value if isinstance(value, Node) else (type(value), repr(value))
