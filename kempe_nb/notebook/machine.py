"""The machine that a run takes place on: its processor, and what the process has used of it."""

import contextlib
import os
import platform
import sys
from pathlib import Path


def processor() -> str:
    """Return the model of the CPU as the system tells it, elsewhere its architecture.

    Results may differ in the last bits from one processor to another, so "x86_64" says too little.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def peak_memory_mib() -> float:
    """Return the peak resident memory of this process in MiB.

    Linux keeps `ru_maxrss` of the parent across fork and exec, so the kernel's own high-water mark
    is read from /proc where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
