"""The rows that a run leaves behind: `results/<operation>.csv`, one row for each measurement."""

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import Footprint, Timing, gb_per_s
from benchmarks.registry import Combination, shape_text
from kempe_nb.publish.checkout import write_atomically

FOLDER = Path(__file__).parent / "results"
COLUMNS = (
    *("operation", "implementation", "shape", "dtype", "device", "threads", "repetitions"),
    *("median_ms", "p20_ms", "p80_ms", "peak_mib", "minimum_bytes", "gb_per_s"),
    *("copy_gb_per_s", "share_of_copy", "launches", "launch_bound"),
    *("torch", "triton", "numpy", "python", "driver", "commit", "date", "note"),
)

Row = dict[str, str]


@dataclass(frozen=True)
class Circumstances:
    """What all rows of a run share, under the names of their columns."""

    device: str
    threads: str
    copy_gb_per_s: float
    torch: str
    triton: str
    numpy: str
    python: str
    driver: str
    commit: str
    date: str


def row(
    combination: Combination,
    circumstances: Circumstances,
    found: tuple[Timing, Footprint] | str,
) -> Row:
    """Return one row; in place of what was measured may stand the reason why nothing was."""
    sizes, dtype = combination.case.sizes, combination.dtype
    minimum = combination.operation.minimum_bytes(sizes, dtype)
    values = {
        "operation": combination.operation.name,
        "implementation": combination.implementation.name,
        "shape": shape_text(sizes),
        "dtype": dtype,
        "minimum_bytes": minimum,
        **asdict(circumstances),
    }
    if isinstance(found, str):
        values["note"] = f"not run: {found}"
    else:
        timing, footprint = found
        speed = gb_per_s(minimum, timing.median_ms)
        values |= asdict(timing) | asdict(footprint)
        values["gb_per_s"] = speed
        values["share_of_copy"] = speed / circumstances.copy_gb_per_s
        values["launch_bound"] = "yes" if timing.launch_bound else "no"
    return {column: _text(values.get(column)) for column in COLUMNS}


def merge(old: list[Row], new: list[Row]) -> list[Row]:
    """Return the rows of a new run, and those of other devices and numbers of threads.

    A run measures all cases of an operation, so it replaces all that its device and its number of
    threads had before: a table never mixes two runs.
    """
    replaced = {(each["device"], each["threads"]) for each in new}
    return [each for each in old if (each["device"], each["threads"]) not in replaced] + new


def read(path: Path) -> list[Row]:
    """Return the rows of a file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[Row]) -> None:
    """Write rows so that the file is the old one or the new one, never a part."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _text(value: object) -> str:
    """Return a value as a cell: four digits of a number, nothing for None."""
    if value is None:
        return ""
    return f"{float(f'{value:.4g}'):g}" if isinstance(value, float) else str(value)
