"""Checks of arguments: each refuses what it is given by its name, and says what is accepted.

What an operation or a method alone has to know of its arguments stands beside it. The kinds of
things that any of them may be given, numbers, shapes, laws, labels, tensors, are checked here.
"""

import math
from collections.abc import Iterable
from numbers import Real

import numpy as np
import torch
from numpy.typing import ArrayLike


def checked_integer(value: object, name: str, low: int, high: int | None = None) -> int:
    """Return an integer from `low` on, up to `high` if there is one, or refuse it by name."""
    if not _is_whole(value) or value < low or (high is not None and value > high):
        end = "up" if high is None else f"to {spoken(high)}"
        raise ValueError(f"{name} is {value!r}; accepted is an integer from {low} {end}")
    return int(value)


def checked_positive(value: object, name: str) -> float:
    """Return a positive finite number, or refuse it by name."""
    if not (_is_real(value) and 0 < value < math.inf):
        raise ValueError(f"{name} is {value!r}; accepted is a positive finite number")
    return float(value)


def checked_number(value: object, name: str, low: float, high: float, accepted: str) -> float:
    """Return a number from `low` to below `high`, or refuse it by name and say what is accepted."""
    if not (_is_real(value) and low <= value < high):
        raise ValueError(f"{name} is {value!r}; accepted is {accepted}")
    return float(value)


def checked_fraction(value: object, name: str) -> float:
    """Return a number from 0 to below 1, or refuse it by name."""
    return checked_number(value, name, 0, 1, "a number from 0 to below 1")


def checked_not_negative(value: object, name: str) -> float:
    """Return a finite number from 0 on, or refuse it by name."""
    return checked_number(value, name, 0, math.inf, "a finite number from 0 on")


def checked_choice(value: object, name: str, accepted: Iterable) -> object:
    """Return one of what is accepted, or refuse it by name."""
    accepted = tuple(accepted)
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; accepted are {', '.join(map(repr, accepted))}")
    return value


def check_dtype(tensor: torch.Tensor, name: str, accepted: Iterable[torch.dtype]) -> None:
    """Refuse a tensor of another dtype than those accepted, by name."""
    accepted = tuple(accepted)
    if tensor.dtype not in accepted:
        spoken_of = ", ".join(str(dtype).removeprefix("torch.") for dtype in accepted)
        raise TypeError(f"{name} is {tensor.dtype}; accepted are {spoken_of}")


def check_finite(tensor: torch.Tensor, name: str) -> None:
    """Refuse a tensor with NaN or infinity, by name and with the number of such elements."""
    # The extremes first, which take no memory; NaN is among them.
    ends = torch.aminmax(tensor.detach()) if tensor.numel() else ()
    if not all(torch.isfinite(end) for end in ends):
        wrong = int((~torch.isfinite(tensor)).sum())
        raise ValueError(
            f"{name} holds {wrong} elements that are NaN or infinite; accepted are finite numbers"
        )


def check_labels(labels: torch.Tensor, classes: int) -> None:
    """Refuse labels outside 0 to `classes` - 1."""
    if not len(labels):
        return
    low, high = (int(end) for end in torch.aminmax(labels))
    if low < 0 or high >= classes:
        raise ValueError(f"labels lie from {low} to {high}; accepted is 0 to {classes - 1}")


def checked_shape(shape: object) -> tuple[int, ...]:
    """Return an int, or a tuple or list of int, as a tuple; refuse anything else."""
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    if not all(_is_whole(size) and 0 <= size < 2**63 for size in sizes):
        raise ValueError(f"shape is {shape!r}; accepted are integers from 0 to 2**63 - 1")
    return tuple(int(size) for size in sizes)


def checked_probabilities(p: ArrayLike, name: str) -> np.ndarray:
    """Return a law as float64 [V], or refuse it with a message that names it and what is wrong."""
    law = np.asarray(p, dtype=np.float64)
    if law.ndim != 1 or law.size == 0:
        raise ValueError(f"{name} has shape {law.shape}; accepted is a non-empty vector")
    if not np.isfinite(law).all():
        raise ValueError(f"{name} holds NaN or infinity; accepted are probabilities")
    if (law < 0).any():
        raise ValueError(f"{name} holds {law.min():g}; accepted are non-negative probabilities")
    if abs(law.sum() - 1) > 1e-9:
        raise ValueError(f"{name} sums to {law.sum():.12g}; accepted is a sum of 1")
    return law


def keep_checked(frozen: object, **values) -> None:
    """Set fields of a frozen dataclass to their checked values, Python's own numbers."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def common_device(**tensors: torch.Tensor) -> torch.device:
    """Return the one device of all tensors; refuse two, and what is no tensor, by name."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; accepted is a torch.Tensor")
    found = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(found.values())) > 1:
        places = ", ".join(f"{name} is on {device}" for name, device in found.items())
        raise ValueError(f"{places}; accepted are tensors on one device")
    return next(iter(found.values()))


def spoken(number: int) -> str:
    """Return a number as people write it: a power of two, or one less, by its exponent."""
    for value, suffix in ((number, ""), (number + 1, " - 1")):
        if value > 2**20 and value & (value - 1) == 0:
            return f"2**{value.bit_length() - 1}{suffix}"
    return str(number)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
