"""The profile of a run: seeds, threads and device, set once at the top of a chapter."""

import platform
import random
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from kempe_nb.notebook import figures, record

PROFILES = ("cpu", "gpu")


@dataclass(frozen=True)
class Profile:
    """Where and how a chapter runs.

    Attributes
    ----------
    name : str
        One of `PROFILES`.
    seed : int
        The chapter's seed; every random stream derives from it.
    device : torch.device
    threads : int
        Threads that torch uses on the CPU.
    """

    name: str
    seed: int
    device: torch.device
    threads: int

    def rng(self, stream: str) -> np.random.Generator:
        """Return a NumPy generator of its own for the named stream.

        Two streams of one seed are independent, and adding a stream to a chapter changes no other
        one: each is seeded by (seed, CRC-32 of its name), not by the order of the calls.
        """
        return np.random.default_rng([self.seed, zlib.crc32(stream.encode())])

    def generator(self, stream: str) -> torch.Generator:
        """Return a torch generator of its own for the named stream, on the profile's device."""
        state = int(self.rng(stream).integers(2**63))
        return torch.Generator(self.device).manual_seed(state)

    def pick(self, *, cpu, gpu):
        """Return the value that belongs to this profile."""
        return {"cpu": cpu, "gpu": gpu}[self.name]


def start(name: str = "cpu", *, seed: int = 0, threads: int = 1) -> Profile:
    """Set seeds, threads, device and figure style, and print one line that says what runs where.

    Parameters
    ----------
    name : {"cpu", "gpu"}
    seed : int
        Non-negative; seeds Python, NumPy's legacy generator and torch.
    threads : int
        CPU threads of torch. One is often many times faster than two for small models.

    Raises
    ------
    ValueError
        For an unknown profile, a negative seed or fewer than one thread.
    RuntimeError
        For `gpu` on a machine where torch sees no GPU.
    """
    if name not in PROFILES:
        raise ValueError(f"profile is {name!r}; accepted are {', '.join(map(repr, PROFILES))}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; accepted is an integer from 0 to 2**32 - 1")
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads is {threads!r}; accepted is a positive integer")
    if name == "gpu" and not torch.cuda.is_available():
        raise RuntimeError(
            "profile is 'gpu', but torch sees no GPU. Run with profile='cpu', or install a CUDA "
            "build of torch on a machine with an NVIDIA GPU, or choose a GPU runtime in Colab."
        )
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    figures.use_style()
    device = torch.device("cuda" if name == "gpu" else "cpu")
    hardware = torch.cuda.get_device_name() if name == "gpu" else platform.machine()
    plural = "" if threads == 1 else "s"
    print(
        f"Profile {name}: {hardware}, {threads} CPU thread{plural}, seed {seed}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )
    record.note("device", hardware)
    return Profile(name, seed, device, threads)
