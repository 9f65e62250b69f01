"""Triton's interpreter is chosen before Triton is imported, so these tests need their own process.

`tests/kernels/test_interpreter_processes.py` starts one for each file.
"""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _poisoned():
    """Fill new memory with NaN or the largest integer, so that nobody reads a lucky zero."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
