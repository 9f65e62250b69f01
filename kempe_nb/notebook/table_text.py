"""Numbers and words as the text of a table, and back exactly."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

_COLUMN = re.compile(r"([A-Za-z_]\w*)(?:\[([\d,]+)\])?")


def plain(number) -> float | int:
    """Return a number of Python that its text gives back exactly."""
    kind = np.asarray(number).dtype.kind
    return float(number) if kind == "f" else int(number)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Return the columns of a file, those of an array put together again."""
    parts: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for position, text in enumerate(head):
        name, index = _COLUMN.fullmatch(text).groups()
        key = tuple(map(int, index.split(","))) if index else ()
        parts.setdefault(name, {})[key] = typed([row[position] for row in rows])
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


def typed(texts: Sequence[str]) -> np.ndarray:
    """Return texts as integers if all are, else as floats if all are, else as words."""
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(text) for text in texts])
        except ValueError:
            continue
    return np.array(texts)
