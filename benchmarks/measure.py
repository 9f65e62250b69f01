"""Time, memory and launches of one call, and the bandwidth of a copy in the same process.

On a GPU a call is timed by events, each time behind a fill that evicts the second-level cache and
hides the time that the CPU takes to launch. A call under `LAUNCH_BOUND_MS` is timed again as a
replay of a CUDA graph, in which launching costs next to nothing; the cache is warm there.
"""

import contextlib
import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kempe_nb.notebook.machine import peak_memory_mib
from kempe_nb.traffic import Traffic

LAUNCH_BOUND_MS = 0.020
#: A call is timed at least this often, unless it takes longer than `LONG_MS`.
FEWEST = 3
MOST = 1000
LONG_MS = 10_000
#: More than the second-level cache of any GPU.
FLUSH_BYTES = 2**28
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
#: The largest freed block that the allocator keeps while a call is timed: where glibc's own limit
#: ends up. While memory is observed only small ones are kept, so that the peak is what is in use.
TIMED_BLOCK, OBSERVED_BLOCK = 2**25, 2**14

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

Call = Callable[[], object]


@dataclass(frozen=True)
class Footprint:
    """What one call takes and starts; None stands for what cannot be had on this machine."""

    peak_mib: float | None
    launches: int | None


@dataclass(frozen=True)
class Timing:
    """How long one call takes."""

    repetitions: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    note: str = ""

    @property
    def launch_bound(self) -> bool:
        """Whether the call is so short that starting it is what it costs."""
        return self.median_ms < LAUNCH_BOUND_MS


def footprint(call: Call, device: str, *, eager: bool) -> Footprint:
    """Return the memory and the launches of a call, which is made at least twice.

    All footprints of a run come before its times: what timing leaves behind on the heap would be
    used again and hide what a call takes.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    eager : bool
        Whether the launches on a CPU can be counted.
    """
    # Memory comes last: the first call compiles what there is to compile.
    if device == "cuda":
        return Footprint(launches=_cuda_launches(call), peak_mib=_cuda_peak_mib(call))
    return Footprint(launches=_cpu_launches(call, eager), peak_mib=_cpu_peak_mib(call))


def timing(call: Call, device: str, budget_ms: float) -> Timing:
    """Time a call in repetitions that together take at most about `budget_ms`."""
    times, note = times_ms(call, device, budget_ms), ""
    if device == "cuda" and statistics.median(times) < LAUNCH_BOUND_MS:
        times, note = _graph_times(call, times)
    p20, median, p80 = np.percentile(times, (20, 50, 80))
    return Timing(len(times), median, p20, p80, note)


def times_ms(call: Call, device: str, budget_ms: float) -> list[float]:
    """Return the times of repeated calls in ms, after one call that warms up."""
    keep_freed_blocks(TIMED_BLOCK)
    once = _cuda_clock(call) if device == "cuda" else lambda: _cpu_ms(call)
    once()
    first = once()
    return [first, *(once() for _ in range(repetitions(first, budget_ms) - 1))]


def repetitions(one_ms: float, budget_ms: float) -> int:
    """Return how often a call of this length is timed."""
    if one_ms > LONG_MS:
        return 1
    return int(np.clip(budget_ms / max(one_ms, 1e-6), FEWEST, MOST))


def copy_gb_per_s(device: str, budget_ms: float) -> float:
    """Return the bandwidth of a large copy inside the device's memory, read and written bytes."""
    size = COPY_BYTES[device]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = times_ms(lambda: target.copy_(source), device, budget_ms)
    return gb_per_s(2 * size, statistics.median(times))


def gb_per_s(count: int, milliseconds: float) -> float:
    """Return bytes over time in GB/s."""
    return count / milliseconds / 1e6


def _cpu_ms(call: Call) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def _cuda_clock(call: Call) -> Callable[[], float]:
    """Return a function that times one call with a cold cache."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")

    def once() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return once


def _graph_times(call: Call, times: list[float]) -> tuple[list[float], str]:
    """Return the times of a call inside a CUDA graph; `times` again where it cannot be captured."""
    from triton.testing import do_bench_cudagraph

    try:
        return do_bench_cudagraph(call, return_mode="all"), "CUDA graph, warm cache"
    except RuntimeError as error:
        torch.cuda.synchronize()
        return times, f"events, for it cannot be captured: {str(error).splitlines()[0]}"


def _cuda_launches(call: Call) -> int | None:
    """Return the kernels, copies and fills of a call, as the profiler sees them."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    on_gpu = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return len(on_gpu) or None


def _cuda_peak_mib(call: Call) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _cpu_launches(call: Call, eager: bool) -> int | None:
    """Return the PyTorch operations of a call that are not views."""
    with Traffic() if eager else contextlib.nullcontext() as traffic:
        call()
    return traffic.launches if traffic else None


def _cpu_peak_mib(call: Call) -> float | None:
    """Return the memory that a call adds to what is resident, on Linux."""
    keep_freed_blocks(OBSERVED_BLOCK)
    try:
        # Free pages that are still resident would hide what a call takes.
        ctypes.CDLL(None).malloc_trim(0)
        # Writing 5 sets the peak to what is resident now.
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return None
    before = peak_memory_mib()
    call()
    return max(0.0, peak_memory_mib() - before)


def keep_freed_blocks(largest: int) -> None:
    """Let glibc keep freed blocks up to this size for later, and give back larger ones at once.

    By itself it moves this limit with what the process has freed before, so that the time and the
    memory of a call would depend on the calls before it.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, size in ((_MMAP_THRESHOLD, largest), (_TRIM_THRESHOLD, 2 * largest)):
            mallopt(option, size)
