"""Three noisy rings in the plane, drawn when they are asked for.

The smallest problem of the code of Vysogorets, Dawid and Kempe (arXiv 2402.03579) has 2,400 points
in three overlapping rings, with classes of 654, 739 and 1,007 points and radii from 0.03 to 0.50,
0.45 to 0.70 and 0.65 to 0.90. Its points are files; these are drawn anew with the same counts and
radii, uniform in radius and angle, which is our choice.
"""

import math

import torch

from kempe_nb.checks import checked_integer

#: Points of each class.
COUNTS = (654, 739, 1007)
#: Smallest and largest radius of each class.
RADII = ((0.03, 0.50), (0.45, 0.70), (0.65, 0.90))


def three_rings(seed: int, copies: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points and their classes, class after class.

    Parameters
    ----------
    seed : int
        From 0 on; the points of another seed are independent.
    copies : int
        Draw this many times 2,400 points, with the same share of each class.

    Returns
    -------
    points : float32 [2400 copies, 2]
    labels : int64 [2400 copies]

    Raises
    ------
    ValueError
        For a seed or copies out of range.
    """
    seed = checked_integer(seed, "seed", 0, 2**63 - 1)
    copies = checked_integer(copies, "copies", 1, 10_000)
    generator = torch.Generator().manual_seed(seed)
    points = []
    for count, (inner, outer) in zip(COUNTS, RADII, strict=True):
        draws = torch.rand(copies * count, 2, generator=generator)
        radius = inner + (outer - inner) * draws[:, 0]
        angle = 2 * math.pi * draws[:, 1]
        points.append(torch.stack([radius * angle.cos(), radius * angle.sin()], 1))
    labels = torch.arange(len(COUNTS)).repeat_interleave(copies * torch.tensor(COUNTS))
    return torch.cat(points), labels
