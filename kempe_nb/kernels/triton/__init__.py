"""Device code in Triton, under the names of the operations; imported only where it runs.

Each module says in `COMPILATIONS` how its kernels are launched and what they may cost: with that
the tests compile them for GPUs that are not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Compilation:
    """A kernel with the types that its launcher gives it, and what it may cost.

    Attributes
    ----------
    kernel : str
        The name of its function.
    types : mapping
        Triton's type of each argument: "*fp32", "i64", and "i64:16" for a multiple of 16.
    registers : int
        How many a thread may take on A100 and H100/H200: what was measured and about a tenth more.
    constants : mapping
        Of the constants that the configuration of the module does not give; "tl.float32" stands
        for the dtype.
    vector : int
        Elements of the widest store of a launch whose size is a multiple of 16; none where the
        kernel has atomic operations alone.
    shape : tuple of int
        What `tile_of` of the module decides by, where it has one.
    rounds_once : bool
        Whether its float64 arithmetic must have the bits of the definition: one rounding for each
        operation, as IEEE 754 prescribes it.
    """

    kernel: str
    types: Mapping[str, str]
    registers: int
    constants: Mapping[str, object] = field(default_factory=dict)
    vector: int = 0
    shape: tuple[int, ...] = ()
    rounds_once: bool = False
