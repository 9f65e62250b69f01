"""The chain of resampling by `torch.multinomial`: every token drawn, then counted.

The size of a sample is fixed here, where the operation's is Poisson distributed. It takes at most
2**24 atoms.
"""

import torch


def chain(law: torch.Tensor, sample_size: int, generations: int, seeds: int) -> tuple:
    """Return lost mass float64, survivors and tokens int64, each [seeds, generations]."""
    atoms = len(law)
    row = torch.arange(seeds, device=law.device)[:, None] * atoms
    weights = law.expand(seeds, -1)
    found = []
    for _ in range(generations):
        drawn = torch.multinomial(weights, sample_size, replacement=True).add_(row)
        counts = torch.bincount(drawn.flatten(), minlength=seeds * atoms).view(seeds, atoms)
        dead = counts == 0
        lost = torch.where(dead, law, 0.0).sum(-1)
        found.append((lost, (~dead).sum(-1), counts.sum(-1)))
        weights = counts.to(law.dtype)
    return tuple(torch.stack(each, dim=1) for each in zip(*found, strict=True))
