"""The classes of galaxies that volunteers' votes make.

After the curated Galaxy Zoo 2 of Guan and others (arXiv 2311.17967, public code): the score of a
class is a product of fractions of votes along the decision tree.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from kempe_nb.checks import checked_integer
from kempe_nb.data.galaxies import CLASSES, real_numbers

#: Answers to the tree's questions, whose fractions of votes the scores need.
VOTES = (
    "smooth",
    "featured",
    "artifact",
    "round",
    "in between",
    "cigar",
    "edge-on",
    "not edge-on",
    "rounded bulge",
    "boxy bulge",
    "no bulge",
    "bar",
    "no bar",
    "spiral",
    "no spiral",
)


def class_scores(fractions: Mapping[str, ArrayLike]) -> np.ndarray:
    """Return the scores of `CLASSES` and of an artifact, float64 [N, 10].

    A score is the product of the fractions of votes along the tree, undebiased. So a galaxy may
    have no score above one half, and its best class may still be clear.

    Parameters
    ----------
    fractions : mapping
        Each of `VOTES` -> numbers from 0 to 1, [N].

    Raises
    ------
    ValueError
        For a missing column, which is named, other shapes, or fractions outside of 0 to 1.
    """
    votes = {}
    for name in VOTES:
        if name not in fractions:
            raise ValueError(f"fractions lack the column {name!r}; accepted have all of VOTES")
        votes[name] = real_numbers(fractions[name], f"fractions[{name!r}]")
        shape = votes[VOTES[0]].shape
        if len(shape) != 1:
            raise ValueError(f"fractions: {name!r} has shape {shape}; accepted is [N]")
        if votes[name].shape != shape:
            raise ValueError(
                f"fractions: {name!r} has shape {votes[name].shape}; accepted is that of "
                f"{VOTES[0]!r}, {shape}"
            )
        wrong = ~((votes[name] >= 0) & (votes[name] <= 1))
        if wrong.any():
            raise ValueError(
                f"fractions: {name!r} holds {votes[name][wrong][0]!r}; accepted are 0 to 1"
            )
    edge = votes["featured"] * votes["edge-on"]
    face = votes["featured"] * votes["not edge-on"]
    return np.stack(
        [
            votes["smooth"] * votes["round"],
            votes["smooth"] * votes["in between"],
            votes["smooth"] * votes["cigar"],
            edge * (votes["rounded bulge"] + votes["boxy bulge"]),
            edge * votes["no bulge"],
            face * votes["bar"] * votes["spiral"],
            face * votes["bar"] * votes["no spiral"],
            face * votes["no bar"] * votes["spiral"],
            face * votes["no bar"] * votes["no spiral"],
            votes["artifact"],
        ],
        1,
    )


def curated(scores: ArrayLike, per_class: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Return the galaxies that are surest of each class, and their classes.

    The class of a galaxy is that of its largest score; artifacts are dropped, and so is what has no
    score above zero.

    Parameters
    ----------
    scores : [N, 10]
        As `class_scores` returns them.
    per_class : int
        Galaxies of each class.

    Returns
    -------
    rows, labels : int64 [9 per_class]
        Class after class, the surest first; ties in the order of the rows.

    Raises
    ------
    ValueError
        For a class with fewer galaxies; the smallest is named.
    """
    scores = real_numbers(scores, "scores")
    per_class = checked_integer(per_class, "per_class", 1)
    if scores.ndim != 2 or scores.shape[1] != len(CLASSES) + 1:
        raise ValueError(
            f"scores have shape {scores.shape}; accepted is [N, {len(CLASSES) + 1}], as of "
            "class_scores"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores hold numbers that are not finite; accepted are finite ones")
    best = np.where(scores.max(1) > 0, scores.argmax(1), -1)
    found = [np.flatnonzero(best == number) for number in range(len(CLASSES))]
    smallest = min(range(len(CLASSES)), key=lambda number: len(found[number]))
    if len(found[smallest]) < per_class:
        raise ValueError(
            f"per_class is {per_class}, but {CLASSES[smallest]!r} has {len(found[smallest])} "
            "galaxies; accepted are as many of each class"
        )
    rows = [
        own[np.argsort(-scores[own, number], kind="stable")[:per_class]]
        for number, own in enumerate(found)
    ]
    return np.concatenate(rows), np.repeat(np.arange(len(CLASSES)), per_class)
