"""Small labelled sets: noise to start a distillation from, and sets to compare one with."""

from collections.abc import Sequence

import numpy as np
import torch

from kempe_nb.checks import checked_integer


def count_classes(x: torch.Tensor, y: torch.Tensor) -> int:
    """Return the number of classes; refuse labels that leave one out, or do not fit the images."""
    if y.dtype != torch.int64 or y.ndim != 1 or len(y) != len(x) or not len(y):
        raise ValueError(
            f"y is {y.dtype} {tuple(y.shape)} and x has {len(x)} images; accepted is int64 with "
            "one class for each image, and at least one image"
        )
    present = y.unique().tolist()
    missing = sorted(set(range(max(present) + 1)) - set(present))
    if missing or present[0] < 0:
        lacking = f" and no image of {missing}" if missing else ""
        raise ValueError(
            f"y has classes {present[0]} to {present[-1]}{lacking}; accepted are classes from 0 on "
            "with at least one image each"
        )
    return len(present)


def noise(
    image: Sequence[int], classes: int, per_class: int, generator: torch.Generator, **kind
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normal images, each divided by its norm as in the released code, and classes."""
    per_class = checked_integer(per_class, "per_class", 1, 2**31 - 1)
    shape = classes * per_class, *image
    images = torch.randn(shape, generator=generator, device=generator.device, **kind)
    norms = images.flatten(1).norm(dim=1).view(-1, *[1] * len(image))
    own = torch.arange(classes, device=generator.device).repeat_interleave(per_class)
    return images / norms, own


def real_images(
    x: torch.Tensor, y: torch.Tensor, per_class: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `per_class` real images of each class without repetition, and their classes."""
    return _of_each_class(x, y, per_class, lambda own: own[rng.permutation(len(own))[:per_class]])


def k_means(
    x: torch.Tensor, y: torch.Tensor, per_class: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centres of k-means in each class; for one image a class, the class means."""
    from sklearn.cluster import KMeans

    def centres(own):
        fitted = KMeans(per_class, n_init=4, random_state=int(rng.integers(2**31)))
        found = fitted.fit(own.flatten(1).double().cpu().numpy()).cluster_centers_
        return torch.from_numpy(found).to(own).view(-1, *own.shape[1:])

    return _of_each_class(x, y, per_class, centres)


def herding(x: torch.Tensor, y: torch.Tensor, per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of each class whose mean follows that of the class, one after another.

    Herding (Welling 2009) in pixels: the next image is the one that brings the mean of the chosen
    ones closest to the mean of the class.
    """

    def chosen(own):
        flat = own.flatten(1)
        mean, total, left = flat.mean(0), torch.zeros_like(flat[0]), list(range(len(flat)))
        picked = []
        for size in range(1, per_class + 1):
            gaps = ((total + flat[left]) / size - mean).square().sum(1)
            picked.append(left.pop(int(gaps.argmin())))
            total = total + flat[picked[-1]]
        return own[picked]

    return _of_each_class(x, y, per_class, chosen)


def _of_each_class(x, y, per_class, choose):
    """Return what `choose` makes of the images of each class, and the classes."""
    per_class = checked_integer(per_class, "per_class", 1, 2**31 - 1)
    classes = count_classes(x, y)
    sizes = torch.bincount(y, minlength=classes)
    if per_class > int(sizes.min()):
        smallest = int(sizes.argmin())
        raise ValueError(
            f"per_class is {per_class}, and class {smallest} has {int(sizes.min())} images; "
            "accepted is at most the size of the smallest class"
        )
    images = torch.cat([choose(x[y == c]) for c in range(classes)])
    return images, torch.arange(classes, device=x.device).repeat_interleave(per_class)
