"""Where a run takes place: the device by name, its driver, and the versions of the libraries."""

import contextlib
import platform
import subprocess

import numpy as np
import torch

from kempe_nb.dispatch import triton_version
from kempe_nb.notebook.machine import processor


def device_name(device: str) -> str:
    """Return the kind and the model of a device: "cpu: AMD EPYC", "cuda: NVIDIA H200"."""
    model = torch.cuda.get_device_name() if device == "cuda" else processor()
    return f"{device}: {model}"


def driver(device: str) -> str:
    """Return the version of the GPU's driver, and nothing for a CPU."""
    if device == "cpu":
        return ""
    with contextlib.suppress(OSError, subprocess.CalledProcessError, IndexError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    return "unknown"


def versions() -> dict[str, str]:
    """Return the versions of what the times depend on; an empty one is not installed."""
    return {
        "torch": torch.__version__,
        "triton": triton_version() or "",
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
