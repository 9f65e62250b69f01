"""Stored runs of a chapter: what a run hands to a sweep, and what a page reads from one.

A notebook calls `keep` with the numbers of an experiment. `python -m kempe_nb sweep` runs the
notebook many times and writes one row for each run into the folder `results` of its chapter, with
a JSON beside it that says how the file was made. The page reads the file with `stored` and compares
its own run with it by `distance`.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kempe_nb.notebook import record

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLUMN = re.compile(r"([a-z][a-z0-9_]*)(?:\[([\d,]+)\])?")


class ResultsError(RuntimeError):
    """A stored file is missing, damaged or not what the page takes it for."""


@dataclass(frozen=True, eq=False)
class Stored:
    """The runs of one table.

    Attributes
    ----------
    name : str
        "CHAPTER/TABLE".
    columns : dict of str to numpy.ndarray
        Parameters of the runs and what they kept, by name; the first axis is the run. Numbers are
        float64 or int64, words are str.
    provenance : dict
        The JSON beside the file: command, commit, profile, devices, versions, date.
    """

    name: str
    columns: Mapping[str, np.ndarray] = field(repr=False)
    provenance: Mapping = field(repr=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> np.ndarray:
        """Return a column, [runs] or [runs, ...]."""
        if column not in self.columns:
            raise KeyError(
                f"{self.name} has no column {column!r}; it has {', '.join(self.columns)}"
            )
        return self.columns[column]

    def where(self, **values) -> "Stored":
        """Return the runs whose columns have these values; at least one has to."""
        keep = np.ones(len(self), bool)
        for column, value in values.items():
            keep &= self[column] == value
        if not keep.any():
            raise ResultsError(f"no run of {self.name} has {values}")
        return Stored(self.name, {k: v[keep] for k, v in self.columns.items()}, self.provenance)


def keep(table: str, **values) -> None:
    """Hand the numbers of an experiment to a sweep; without one, only check them.

    Parameters
    ----------
    table : str
        The name of the table, lower-case; one row of it for each run.
    **values
        Finite numbers, words without line breaks, and arrays of finite numbers. The entries of an
        array become columns of their own.

    Raises
    ------
    ValueError
        For a bad name, an empty array, or anything else than these values.
    """
    _refuse_bad_names(table, values)
    row = {}
    for name, value in values.items():
        row |= _flattened(name, value)
    record.note("tables", record.fact("tables", {}) | {table: row})


def stored(name: str, folder: Path | None = None) -> Stored:
    """Read the stored runs of a table.

    Parameters
    ----------
    name : str
        "CHAPTER/TABLE", as in "model_collapse/laws".
    folder : path, optional
        Where the chapters are; by default book/chapters of the checkout around the current folder.

    Raises
    ------
    ResultsError
        When the file or the JSON beside it is missing, or when they do not belong together.
    """
    chapter, _, table = name.partition("/")
    chapters = folder or chapters_folder()
    place = chapters / chapter / "results" / f"{table}.csv"
    if not place.exists():
        files = sorted(chapters.glob("*/results/*.csv"))
        known = ", ".join(f"{file.parent.parent.name}/{file.stem}" for file in files)
        raise ResultsError(
            f"{place} cannot be read: name is {name!r}; stored are {known or 'none'}, and "
            "python -m kempe_nb sweep makes them"
        )
    content, provenance = read_pair(place)
    record.note("stored", record.fact("stored", {}) | {name: provenance["sha256"]})
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"))))
    return Stored(name, _columns(rows[0], rows[1:]), provenance)


def chapters_folder() -> Path:
    """Return book/chapters of the checkout that holds the current folder."""
    for parent in (Path.cwd(), *Path.cwd().parents):
        if (parent / "book" / "chapters").is_dir():
            return parent / "book" / "chapters"
    raise ResultsError(
        f"no book/chapters in {Path.cwd()} or above: the stored runs come with the repository, so "
        "start the notebook inside a clone of it"
    )


def read_pair(place: Path) -> tuple[bytes, dict]:
    """Return the content of a stored file and its provenance, or refuse a pair that is torn."""
    try:
        content = place.read_bytes()
        provenance = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{place} cannot be read ({error}); python -m kempe_nb sweep makes it"
        ) from None
    if provenance.get("sha256") != hashlib.sha256(content).hexdigest():
        raise ResultsError(
            f"{place} is not the file that {place.stem}.json tells of; make it again"
        )
    return content, provenance


def distance(live: Iterable, runs: np.ndarray) -> float:
    """Return how far a new run is from stored ones, in standard deviations of a normal variable.

    For each number: if it came from the same normal law as the n stored ones, then
    (live - mean) / (sd sqrt(1 + 1/n)) would follow Student's law with n - 1 degrees of freedom. Its
    tail probability is turned into the distance at which a standard normal variable has the same
    one, so that few runs make no narrow bounds. The largest distance of all numbers is returned. A
    number that never varied in the stored runs has to be met exactly.

    Parameters
    ----------
    live : array_like [...]
    runs : numpy.ndarray [runs, ...]
        At least three runs.

    Raises
    ------
    ValueError
        For fewer than three runs, or shapes that do not fit.
    """
    return _distance(live, runs, lambda count: math.sqrt(1 + 1 / count))


def distance_of_mean(expected: Iterable, runs: np.ndarray) -> float:
    """Return how far the mean of stored runs is from what a formula expects.

    As `distance`, with the standard error sd / sqrt(n) of the mean in place of the spread of a run.
    """
    return _distance(expected, runs, lambda count: math.sqrt(1 / count))


def _distance(value: Iterable, runs: np.ndarray, scale) -> float:
    # Imported here: a run that only keeps its numbers starts a second sooner.
    from scipy import stats

    value, runs = np.asarray(value, dtype=float), np.asarray(runs, dtype=float)
    if len(runs) < 3 or runs.shape[1:] != value.shape:
        raise ValueError(
            f"runs has shape {runs.shape} and the value {value.shape}; accepted are three runs or "
            "more of the same shape"
        )
    count = len(runs)
    gap = np.abs(value - runs.mean(0))
    deviation = runs.std(0, ddof=1) * scale(count)
    # Rounding alone is no distance.
    varies = deviation > 1e-12 * np.maximum(1, np.abs(runs).max(0))
    t = np.divide(gap, deviation, out=np.where(gap > 1e-9, np.inf, 0.0), where=varies)
    return float(np.max(stats.norm.isf(stats.t.sf(t, count - 1)), initial=0.0))


def _refuse_bad_names(table: str, values: Mapping) -> None:
    for what, name in (("table", table), *(("a value", name) for name in values)):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{what} is named {name!r}; accepted are lower-case words like 'laws'")
    if not values:
        raise ValueError(f"table {table!r} is given no values to keep")


def _flattened(name: str, value) -> dict[str, float | int | str]:
    """Return the columns of a value by their names."""
    if isinstance(value, str):
        if not value.isprintable():
            raise ValueError(f"{name} is {value!r}; accepted are words without line breaks")
        return {name: value}
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "biuf" or numbers.size == 0 or not np.isfinite(numbers).all():
        raise ValueError(f"{name} is {value!r}; accepted are words and finite numbers")
    if numbers.ndim == 0:
        return {name: _plain(numbers)}
    return {
        f"{name}[{','.join(map(str, index))}]": _plain(number)
        for index, number in np.ndenumerate(numbers)
    }


def _plain(number) -> float | int:
    """Return a number of Python that its text gives back exactly."""
    kind = np.asarray(number).dtype.kind
    return float(number) if kind == "f" else int(number)


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Return the columns of a file, those of an array put together again."""
    parts: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for position, text in enumerate(head):
        name, index = _COLUMN.fullmatch(text).groups()
        key = tuple(map(int, index.split(","))) if index else ()
        parts.setdefault(name, {})[key] = _typed([row[position] for row in rows])
    return {name: _assembled(entries) for name, entries in parts.items()}


def _assembled(entries: Mapping[tuple[int, ...], np.ndarray]) -> np.ndarray:
    if () in entries:
        return entries[()]
    shape = tuple(1 + max(axis) for axis in zip(*entries, strict=True))
    runs = next(iter(entries.values()))
    whole = np.empty((len(runs), *shape), np.result_type(*entries.values()))
    for index, column in entries.items():
        whole[(slice(None), *index)] = column
    return whole


def _typed(texts: Sequence[str]) -> np.ndarray:
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(text) for text in texts])
        except ValueError:
            continue
    return np.array(texts)
