"""Random directions, sparse, and sparse matrices made of their entries."""

import warnings

import torch

from kempe_nb.checks import checked_integer


def sparse_directions(
    parameters: int,
    directions: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return random directions [D, d] with few entries, a sparse tensor; columns have length 1.

    Each coordinate is nonzero with probability 1 / sqrt(D), and then of either sign alike: the
    hyperplanes of the code of Vysogorets, Dawid and Kempe (2024). A column that would be empty gets
    one entry. Drawn on the CPU, so that a seed gives the same directions everywhere.

    Parameters
    ----------
    parameters, directions : int
        D, and d from 1 to D.

    Raises
    ------
    ValueError
        For sizes out of range.
    """
    size = checked_integer(parameters, "parameters", 1, 2**63 - 1)
    count = checked_integer(directions, "directions", 1, size)
    rows, signs = [], []
    for _ in range(count):
        own = torch.nonzero(torch.rand(size, generator=generator) < size**-0.5).squeeze(1)
        if not len(own):
            own = torch.randint(size, (1,), generator=generator)
        coin = torch.randint(2, (len(own),), generator=generator)
        rows.append(own)
        signs.append((2 * coin - 1).to(dtype) / len(own) ** 0.5)
    lengths = torch.tensor([len(own) for own in rows])
    columns = torch.repeat_interleave(torch.arange(count), lengths)
    indices = torch.stack([torch.cat(rows), columns])
    return coo_tensor(indices, torch.cat(signs), (size, count)).coalesce().to(device)


def coo_tensor(indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False)


def csr_tensor(rows, columns, values, shape) -> torch.Tensor:
    with warnings.catch_warnings():
        # PyTorch tells once in a process that CSR tensors may change.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        return coo_tensor(torch.stack([rows, columns]), values, shape).to_sparse_csr()
