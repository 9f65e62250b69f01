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
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from kempe_nb.notebook import record
from kempe_nb.notebook.table_text import columns, plain, typed

#: With fewer, Student's law accepts nearly everything at the levels of a page.
FEWEST_RUNS = 10

_NAME = re.compile(r"[a-z][a-z0-9_]*")


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
        "CHAPTER/TABLE", as in "model_collapse/gcd".
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
    return Stored(name, columns(rows[0], rows[1:]), provenance)


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


def distance(
    live: ArrayLike,
    runs: ArrayLike,
    *,
    at_most: float,
    low: ArrayLike,
    high: ArrayLike,
    resolution: ArrayLike = 0.0,
) -> float:
    """Return how far a new run is from stored ones, in standard deviations of a normal variable.

    If a number comes from the same normal law as the n stored ones, then
    (live - mean) / (sd sqrt(1 + 1/n)) follows Student's law with n - 1 degrees of freedom. The
    smallest two-sided tail probability of all m numbers is multiplied by m (Bonferroni: right for
    any dependence between the numbers) and turned into the distance at which a standard normal
    variable has the same one. So compare all numbers of a page in one call.

    *False alarms.* A distance above z has at most the chance of a normal variable beyond z: 6e-5
    for z = 4, 7e-6 for z = 4.5. This needs numbers with the tails of a normal law. Simulated for
    z = 4, with 10 and with 20 runs: normal numbers 6e-5 to 8e-5, uniform ones 1e-5 and less; but a
    single number with a Laplace law 1e-3 to 3e-3, with an exponential law 5e-3 to 7e-3, and twenty
    such numbers three to ten times as often. So compare positive, skewed numbers by their
    logarithms. No bound helps against a rare failure: if a share p of all runs jumps away, the
    stored ones miss it and the new one has it with the chance p (1 - p)^n, up to 1 / (e n).

    The bound is for all calls. Refused calls are those whose runs spread widely; so where most are
    refused, the others have happened upon a small spread and raise more false alarms. Simulated for
    ten runs of one normal number: 8e-5 where one call in four is refused, 2e-4 where two in three
    are, 2e-3 where all but one in thirty are. Give a call that is near its limit more runs.

    *Power.* Accepted is mean +- c sd; with z = 4 the factor c is

    ====  =====  ======  =======
    runs  m = 1  m = 10  m = 100
    ====  =====  ======  =======
    10    7.3    9.8     12.9
    20    5.2    6.3     7.5
    30    4.7    5.6     6.4
    ====  =====  ======  =======

    An error of c sd in one number is found every second time, one of 1.4 c (ten runs) or 1.3 c
    (twenty) nine times in ten. A call whose interval holds more than half of the values between
    `low` and `high` is refused: it would pass for nearly anything. Whether it is refused depends on
    the stored runs alone, never on the new one.

    Parameters
    ----------
    live : array_like [...]
        The numbers of the new run.
    runs : array_like [runs, ...]
        Those of at least ten stored runs, in the same units.
    at_most : float
        The bound, in standard deviations, that the distance will be compared with.
    low, high : array_like
        The range that a run can reach, failed ones included, in the units of the numbers: 0 and 1
        for accuracies. Scalars, or of the shape of `live`.
    resolution : array_like
        The least spread to reckon with, in the units of the numbers: for a share of N test images
        1 / N. Ten runs without a single error show only that errors are fewer than 0.3 a run (at
        95 per cent), so the eleventh may well have one, on another processor with the same seed
        too. Without a resolution, a number that is the same in all stored runs is refused.

    Returns
    -------
    float
        Zero where the tail, times the number of numbers, is one half or more; infinite when a
        number of `live` is not finite.

    Raises
    ------
    ValueError
        For fewer than ten runs, shapes that do not fit, stored numbers that are not finite or have
        their mean outside of the range, or arguments that make no range, bound or resolution.
    ResultsError
        When a number does not vary and has no resolution, or when its accepted interval holds more
        than half of its range; the message names the number and the interval.
    """
    live, runs = _compared(live, runs)
    low, high = _range(low, high, runs.mean(0), "the mean of the runs")
    accepted_low, accepted_high = accepted(runs, at_most=at_most, resolution=resolution)
    _refuse_wide(accepted_low, accepted_high, low, high, at_most, len(runs))
    spread = _spread(runs, resolution) * math.sqrt(1 + 1 / len(runs))
    return _normal_distance(live - runs.mean(0), spread, len(runs))


def distance_of_mean(
    expected: ArrayLike,
    runs: ArrayLike,
    *,
    at_most: float,
    low: ArrayLike,
    high: ArrayLike,
) -> float:
    """Return how far the mean of runs is from what a formula expects.

    As `distance`, with the standard error sd / sqrt(n) of the mean in place of the spread of a run.
    The false alarms are those of Student's law for a mean, which a skew of single runs disturbs
    less. The power grows with the number of runs: accepted is expected +- c sd / sqrt(n + 1), with
    the c of `distance`.

    Parameters
    ----------
    expected : array_like [...]
        What the formula says; no estimate of its own.
    runs : array_like [runs, ...]
        At least ten independent runs.
    at_most : float
        The bound, in standard errors, that the distance will be compared with.
    low, high : array_like
        Wrong values that the check has to tell from the right one, on either side of `expected`:
        0.9 and 1.1 times the formula, say. Refused is a call that accepts more than half of what
        lies between them.

    Returns
    -------
    float
        At least zero; infinite when a number of `expected` is not finite.

    Raises
    ------
    ValueError, ResultsError
        As `distance`; it is `expected` that has to lie between `low` and `high`.
    """
    expected, runs = _compared(expected, runs)
    if np.isfinite(expected).all():
        low, high = _range(low, high, expected, "the expected value")
    else:
        return math.inf
    error = _spread(runs, 0.0) / math.sqrt(len(runs))
    width = _quantile(at_most, expected.size, len(runs)) * error
    _refuse_wide(expected - width, expected + width, low, high, at_most, len(runs))
    return _normal_distance(runs.mean(0) - expected, error, len(runs))


def accepted(
    runs: ArrayLike, *, at_most: float, resolution: ArrayLike = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends [...] of the intervals in which `distance` is at most `at_most`.

    The arguments and errors are those of `distance`; the intervals are for all numbers of `runs`
    together, and are not cut at the ends of a range.
    """
    runs = _checked_runs(runs)
    spread = _spread(runs, resolution) * math.sqrt(1 + 1 / len(runs))
    width = _quantile(at_most, runs[0].size, len(runs)) * spread
    return runs.mean(0) - width, runs.mean(0) + width


def _checked_runs(runs: ArrayLike) -> np.ndarray:
    runs = np.asarray(runs, dtype=float)
    if runs.ndim == 0 or len(runs) < FEWEST_RUNS:
        raise ValueError(
            f"runs has shape {runs.shape}; accepted are {FEWEST_RUNS} runs or more, because fewer "
            "do not tell how far a run may lie from the others"
        )
    if runs[0].size == 0 or not np.isfinite(runs).all():
        raise ValueError("runs has no numbers, or some that are not finite")
    return runs


def _compared(value: ArrayLike, runs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    value, runs = np.asarray(value, dtype=float), _checked_runs(runs)
    if runs.shape[1:] != value.shape:
        raise ValueError(
            f"runs has shape {runs.shape} and the value {value.shape}; accepted are runs of the "
            "shape of the value"
        )
    return value, runs


def _range(low, high, inside: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the range in the shape of the numbers, or refuse one that they are not in."""
    low, high = (np.broadcast_to(np.asarray(end, float), inside.shape) for end in (low, high))
    if not (np.isfinite(low) & np.isfinite(high) & (low <= inside) & (inside <= high)).all():
        raise ValueError(
            f"low and high are no finite range around {what}; give the range that a run can reach, "
            "in the units of the numbers"
        )
    return low, high


def _spread(runs: np.ndarray, resolution: ArrayLike) -> np.ndarray:
    """Return the standard deviation of each number, a unit of resolution at least."""
    least = np.broadcast_to(np.asarray(resolution, float), runs.shape[1:])
    if not (np.isfinite(least) & (least >= 0)).all():
        raise ValueError(f"resolution is {resolution!r}; accepted are finite numbers from zero up")
    spread = np.maximum(runs.std(0, ddof=1), least)
    # What differs by rounding alone does not vary.
    still = spread <= 1e-12 * np.maximum(1e-300, np.abs(runs).max(0))
    if still.any():
        place = tuple(map(int, np.argwhere(still)[0]))
        raise ResultsError(
            f"number {place} is {runs[(0, *place)]:.6g} in all {len(runs)} runs, so nothing tells "
            "how far another run may be from it; give the resolution with which it is measured, or "
            "leave it out"
        )
    return spread


def _quantile(at_most: float, numbers: int, count: int) -> float:
    """Return the value of Student's law at which the distance of `numbers` numbers is `at_most`."""
    # Imported here and below: a run that only keeps its numbers starts a second sooner.
    from scipy import stats

    if not (isinstance(at_most, Real) and 0 < at_most < math.inf):
        raise ValueError(f"at_most is {at_most!r}; accepted are positive finite numbers")
    return float(stats.t.isf(stats.norm.sf(at_most) / numbers, count - 1))


def _refuse_wide(accepted_low, accepted_high, low, high, at_most: float, count: int) -> None:
    """Refuse a check that more than half of the range of one of its numbers passes."""
    covered = np.minimum(accepted_high, high) - np.maximum(accepted_low, low)
    share = np.divide(covered, high - low, out=np.ones(low.shape), where=high > low)
    if not share.size or share.max() <= 0.5:
        return
    place = np.unravel_index(np.argmax(share), share.shape)
    name = tuple(map(int, place))
    raise ResultsError(
        f"number {name} of {count} runs: a bound of {at_most:g} accepts {accepted_low[place]:.3g} "
        f"to {accepted_high[place]:.3g}, more than half of its range from {low[place]:.3g} to "
        f"{high[place]:.3g}; such a check passes for nearly anything. Compare fewer numbers, or "
        "numbers that vary less, or store more runs"
    )


def _normal_distance(gap: np.ndarray, deviation: np.ndarray, count: int) -> float:
    """Return the normal deviation with the tail of the largest of all gaps."""
    from scipy import stats

    if not np.isfinite(gap).all():
        return math.inf
    tail = gap.size * stats.t.sf(np.max(np.abs(gap) / deviation), count - 1)
    return float(stats.norm.isf(min(tail, 0.5)))


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
        if typed([value]).dtype.kind != "U":
            raise ValueError(f"{name} is {value!r}, which would be read as a number; add a letter")
        return {name: value}
    try:
        numbers = np.asarray(value)
        fits = numbers.dtype.kind in "biuf" and numbers.size and np.isfinite(numbers).all()
    except (RuntimeError, TypeError, ValueError):
        # A ragged list, a type that numpy lacks, or a tensor that asks for a gradient.
        fits = False
    if not fits or (numbers.dtype.kind == "u" and numbers.max() > np.iinfo(np.int64).max):
        raise ValueError(
            f"{name} is {value!r}; accepted are words, and finite numbers below 2**63 or arrays of "
            "them"
        )
    if numbers.ndim == 0:
        return {name: plain(numbers)}
    return {
        f"{name}[{','.join(map(str, index))}]": plain(number)
        for index, number in np.ndenumerate(numbers)
    }
