"""Labelled images: their form, and the choice of some of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from kempe_nb.data.errors import bad_argument


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images of one split.

    Attributes
    ----------
    name, split : str
        What was asked for.
    images : torch.Tensor
        uint8, shape [N, C, H, W], in the published pixel range: 0 to 255, or 0 to 16 for digits.
    labels : torch.Tensor
        int64, shape [N]; indices into `classes`.
    classes : tuple of str
        Names of the classes.
    description : str
        One sentence: counts, where the data come from and how they were verified.
    """

    name: str
    split: str
    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    classes: tuple[str, ...]
    description: str


def make_images(
    name: str,
    split: str,
    pixels: np.ndarray,
    labels: np.ndarray,
    classes: Iterable[str],
    source: str,
    *,
    values: str = "0 to 255",
) -> Images:
    """Put arrays ([N, C, H, W] and [N]) into an Images; `source` ends its description."""
    classes = tuple(classes)
    count, channels, height, width = pixels.shape
    colours = "channel" if channels == 1 else "channels"
    return Images(
        name=name,
        split=split,
        images=torch.from_numpy(np.array(pixels, dtype=np.uint8, order="C")),
        labels=torch.from_numpy(np.array(labels, dtype=np.int64)),
        classes=classes,
        description=(
            f"{name} ({split}): {count:,} images of {height} x {width} pixels, {channels} "
            f"{colours}, values {values}, {len(classes)} classes; {source}."
        ),
    )


def check_limit(limit: int, size: int, name: str, split: str) -> None:
    """Refuse a `limit` larger than the split."""
    if limit > size:
        accepted = f"None or 1 to {size}, the size of {name!r} split {split!r}"
        raise bad_argument("limit", limit, accepted)


def limited(everything: Images, limit: int | None, seed: int) -> Images:
    """Keep the first `limit` images of a permutation drawn with `seed`."""
    if limit is None:
        return everything
    size = len(everything.labels)
    check_limit(limit, size, everything.name, everything.split)
    generator = torch.Generator().manual_seed(int(seed))
    chosen = torch.randperm(size, generator=generator)[: int(limit)]
    return replace(
        everything,
        images=everything.images[chosen],
        labels=everything.labels[chosen],
        description=f"{limit:,} images drawn with seed {seed} from {everything.description}",
    )
