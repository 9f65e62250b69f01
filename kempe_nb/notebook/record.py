"""What a run leaves behind besides its notebook: a small JSON that whoever runs it asks for.

Whoever runs a notebook names a file in the environment variable `KEMPE_NB_RECORD`; without it
nothing is written. The executor of the book does, and the notebook then draws every frame of its
sliders. nbval does, too, to compare the numbers of a live notebook with those of the page: it sets
`KEMPE_NB_LIVE` besides, and the notebook behaves as it does for a reader.
"""

import json
import os
import platform
import sys
from pathlib import Path

from kempe_nb.notebook.machine import cpu_seconds, peak_memory_mib, processor

VARIABLE = "KEMPE_NB_RECORD"
LIVE = "KEMPE_NB_LIVE"

_facts: dict = {}


def is_published() -> bool:
    """Tell whether the executor of the book runs this notebook."""
    return VARIABLE in os.environ and LIVE not in os.environ


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
    """Write the facts, the claims, the cost and the package modules used, if asked to."""
    if VARIABLE not in os.environ:
        return
    facts = _facts | {
        "claims": claims,
        "peak_mib": peak_memory_mib(),
        "cpu_seconds": round(cpu_seconds(), 1),
        "device": device(),
        "modules": loaded_modules(),
        "kernel": kernel(),
    }
    Path(os.environ[VARIABLE]).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def device() -> str:
    """Return the GPU that the run noted, and without one the processor by its model."""
    noted = fact("device", platform.machine())
    return processor() if noted == platform.machine() else noted


def kernel() -> dict[str, object]:
    """Return which Python ran the notebook, with which copy of the package.

    Whoever runs a notebook compares this with its own, so that it never speaks for other code.
    """
    return {
        "environment": os.path.realpath(sys.prefix),
        "package": os.path.realpath(Path(__file__).parent.parent),
        "optimize": sys.flags.optimize,
    }


def loaded_modules() -> list[str]:
    """Return the names of the modules of kempe_nb that this process imported."""
    return sorted(name for name in sys.modules if name.split(".")[0] == "kempe_nb")
