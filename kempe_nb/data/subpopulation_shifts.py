"""The lessons' samples under shifts of groups, by name: training, annotated and test.

Three are made here. Of an annotated set that was extracted before, a file's name is a name, too.
"""

import numpy as np
import torch

from kempe_nb.data.annotated_groups import feature_file
from kempe_nb.data.coloured_backgrounds import Painted, coloured_digits
from kempe_nb.data.errors import DataError
from kempe_nb.data.negation_pairs import negation_pairs
from kempe_nb.data.scaled import scaled_images

#: Share of the annotated digits that stand on the ground of their label; in training 95 per cent.
ANNOTATED_SHARES = {"even": 0.5, "skewed": 0.95}
MADE = (*ANNOTATED_SHARES, "text")
#: The groups of MultiNLI's training set, from memory: label by label without and with negation.
MULTINLI = (57498, 11158, 67376, 1521, 66630, 1992)
#: Pairs of text, before each group is rounded; the test has as many of each group.
PAIRS = {"train": 2000, "annotated": 600}
FEWEST_PAIRS = 4
TEST_PAIRS = 400
SPLITS = {"train": "train", "annotated": "val", "test": "test"}


def subpopulation_shift(
    name: str, generator: torch.Generator, device: torch.device | str = "cpu"
) -> dict[str, Painted]:
    """Return "train", "annotated" and "test": inputs, labels and groups each.

    Parameters
    ----------
    name : str
        "even" or "skewed": `coloured_digits` on scikit-learn's digits, by `ANNOTATED_SHARES`.
        "text": `negation_pairs` with groups as skewed as MultiNLI's. Anything else is the path of a
        `feature_file`, whose split "val" is the annotated set.
    generator : torch.Generator
        Of what is made, on the device; a file needs none. Of text, what counts is the seed that the
        generator started with, not what was drawn from it since.

    Raises
    ------
    DataError
        If the file is not there or is not accepted, or one of its splits is empty.
    """
    if name in ANNOTATED_SHARES:
        parts = [scaled_images("digits", split, device) for split in ("train", "test")]
        strokes, digits = (torch.cat(each) for each in zip(*parts, strict=True))
        return coloured_digits(strokes, digits, generator, annotated_share=ANNOTATED_SHARES[name])
    if name == "text":
        return _negations(generator, device)
    return _from_file(name, device)


def _negations(generator: torch.Generator, device) -> dict[str, Painted]:
    shares = np.array(MULTINLI) / sum(MULTINLI)
    counts = {
        split: np.maximum(np.round(number * shares), FEWEST_PAIRS).astype(int).tolist()
        for split, number in PAIRS.items()
    } | {"test": len(MULTINLI) * [TEST_PAIRS]}
    # Pairs are drawn on the CPU, whatever the device.
    draw = torch.Generator().manual_seed(generator.initial_seed() % 2**63)
    return {
        split: Painted(*(each.to(device) for each in negation_pairs(tuple(numbers), draw)))
        for split, numbers in counts.items()
    }


def _from_file(path: str, device) -> dict[str, Painted]:
    try:
        found = feature_file(path)
    except DataError as error:
        raise DataError(f"{error} Made here are {', '.join(map(repr, MADE))}.") from error
    rows = {ours: found.rows(theirs) for ours, theirs in SPLITS.items()}
    if empty := [SPLITS[name] for name, own in rows.items() if not len(own)]:
        raise DataError(f"{path} has no sample in the split {empty[0]!r}.")
    columns = found.features, found.labels, found.groups
    return {
        name: Painted(*(each[own].to(device) for each in columns)) for name, own in rows.items()
    }
