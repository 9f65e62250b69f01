"""The file of a finished sweep: its rows, and the provenance beside them."""

import csv
import io
import json
import shlex
from collections.abc import Iterable, Mapping

from kempe_nb.publish.checkout import write_atomically
from kempe_nb.publish.project import UsageError
from kempe_nb.publish.staleness import sha256

#: Facts of a run that its provenance tells.
TOLD = ("device", "cores", "versions", "commit", "date")


def write_file(sweep, entries: list[dict], code: str) -> None:
    """Write rows and provenance of a `Sweep`; the latter holds the hash of the rows, moves last."""
    for entry in entries:
        for name in sweep.grid:
            if name in entry["row"]:
                raise UsageError(
                    f"table {sweep.table!r} keeps {name!r}, which is a parameter of the grid and "
                    "has a column of its own; accepted is another name"
                )
    rows = [
        {name: run[name] for name in sweep.grid} | entry["row"]
        for run, entry in zip(sweep.runs, entries, strict=True)
    ]
    head = list(rows[0])
    for run, row in zip(sweep.runs, rows, strict=True):
        if list(row) != head:
            other = sorted(set(row) ^ set(head)) or "another order"
            raise UsageError(f"the run {told(run)} kept other columns than the first: {other}")
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    modules = {name: digest for entry in entries for name, digest in entry["modules"].items()}
    provenance = {
        "notebook": sweep.notebook,
        "table": sweep.table,
        "profile": sweep.profile,
        "grid": dict(sweep.grid),
        "command": shlex.join(["python", "-m", "kempe_nb", *sweep.arguments()]),
        "runs": len(rows),
        "seconds": round(sum(entry["seconds"] for entry in entries), 1),
        **{fact: _distinct(entry[fact] for entry in entries) for fact in TOLD},
        "code": code,
        "modules": dict(sorted(modules.items())),
        "sha256": sha256(content),
    }
    write_atomically(sweep.file, content)
    write_atomically(
        sweep.file.with_suffix(".json"), (json.dumps(provenance, indent=1) + "\n").encode()
    )


def told(run: Mapping) -> str:
    """Return the parameters of a run in words."""
    return " ".join(f"{name}={value}" for name, value in run.items() if name != "profile")


def _distinct(values: Iterable) -> list:
    """Return the different values in a fixed order."""
    return sorted({json.dumps(value, sort_keys=True): value for value in values}.values(), key=repr)
