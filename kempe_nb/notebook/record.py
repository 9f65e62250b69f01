"""What a run leaves behind besides its notebook: a small JSON that the executor asks for.

The executor names a file in the environment variable `KEMPE_NB_RECORD`. Without it, as in a live
notebook, nothing is written.
"""

import json
import os
import sys
from pathlib import Path

VARIABLE = "KEMPE_NB_RECORD"

_facts: dict = {}


def is_published() -> bool:
    """Tell whether the executor of the book runs this notebook."""
    return VARIABLE in os.environ


def note(key: str, value) -> None:
    """Keep one fact of this run for `write`."""
    _facts[key] = value


def fact(key: str, default):
    """Return a fact that was noted in this run, or the default."""
    return _facts.get(key, default)


def count(key: str) -> None:
    """Add one to a counter of this run."""
    _facts[key] = _facts.get(key, 0) + 1


def write(claims: list[dict]) -> None:
    """Write the facts, the claims, the peak memory and the package modules used, if asked to."""
    if not is_published():
        return
    facts = _facts | {
        "claims": claims,
        "peak_mib": peak_memory_mib(),
        "modules": loaded_modules(),
    }
    Path(os.environ[VARIABLE]).write_text(json.dumps(facts, indent=1))


def peak_memory_mib() -> float:
    """Return the peak resident memory of this process in MiB.

    Linux keeps `ru_maxrss` of the parent across fork and exec, so the kernel's own high-water mark
    is read from /proc where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def loaded_modules() -> list[str]:
    """Return the names of the modules of kempe_nb that this process imported."""
    return sorted(name for name in sys.modules if name.split(".")[0] == "kempe_nb")
