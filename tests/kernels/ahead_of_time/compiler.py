"""Compile a Triton kernel for a GPU that is not there, and read off what came of it."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Compiled:
    """What a kernel costs on a streaming multiprocessor, and its assembly; see `without_debug`."""

    registers: int
    stack: int
    shared: int
    ptx: str

    def count(self, pattern: str) -> int:
        """Return how many lines of the assembly match a regular expression."""
        return len(re.findall(pattern, self.ptx, re.M))


def without_debug(ptx: str) -> str:
    """Return assembly without what is there for a debugger: sections, and lines of the source.

    It spells out paths, offsets and names, and what a test looks for could be among them.
    """
    ptx = re.sub(r"^\s*\.section\s+\.debug\w*\s*\{[^}]*\}", "", ptx, flags=re.M)
    return re.sub(r"^\s*\.(?:file|loc)\b.*$", "", ptx, flags=re.M)


def compile_kernel(kernel, types, constants, options, capability, folder) -> Compiled:
    """Return a kernel compiled for `capability` with pointers aligned to 16 bytes.

    Parameters
    ----------
    types : dict of str
        The type of each argument that is no constant, such as "*fp64" or "i64"; "i64:16" is an
        integer that Triton finds to be a multiple of 16.
    constants : dict
        The values of the constexpr arguments.
    options : dict
        num_warps and the like.
    """
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr").partition(":")[0] for name in names}
    whole = [name for name, kind in types.items() if "*" in kind or kind.endswith(":16")]
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in whole}
    source = ASTSource(
        kernel, signature, {(names.index(n),): v for n, v in constants.items()}, aligned
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    command = [TOOL, "--dump-resource-usage", cubin]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}
    return Compiled(found["REG"], found["STACK"], found["SHARED"], without_debug(made.asm["ptx"]))
