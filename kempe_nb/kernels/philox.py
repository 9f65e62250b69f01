"""Random numbers that are the same bits on a CPU and on a GPU: Philox4x32-10.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a bijection of 128
bits, one for each key of 64 bits: ten rounds of two multiplications and a few exclusive ors. Random
numbers are what it makes of a counter, so any number of any sequence can be had at once, in any
order, by any number of threads. Here

* the key is the *seed*: any integer from 0 to 2**64 - 1;
* the counter is (index, stream, purpose, trial): 64 bits for the index of a block of four words,
  32 for the stream, 8 for the purpose, 24 for the trial of a rejection.

Streams that do not overlap. For one seed, two draws that differ in stream, purpose, trial or index
use different counters, so they never share a block. Each operation of the package has its own
purpose (`Purpose`); a caller has 2**32 streams of 2**64 words each. Two seeds are two different
bijections; nothing can promise that their values differ, and nothing is known to relate them.

The functions below read the words of the sequence (seed, stream) from position `offset` on, so that
a sequence read in two parts is the sequence read in one.
"""

import enum
import functools
import math
from collections.abc import Iterator

import numpy as np
import torch

from kempe_nb.checks import checked_integer, checked_shape
from kempe_nb.dispatch import Operation

ROUNDS = 10
WORD = 2**32
#: Blocks that are computed at a time on a CPU, so that the ten rounds stay in its cache.
CHUNK = 16_384

#: Rounds after which every word depends on every word of the counter and of the key.
MIXING_ROUNDS = 3

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


class Purpose(enum.IntEnum):
    """What a block is drawn for: the top 8 bits of a counter."""

    WORDS = 0
    INTEGERS = 1
    ZIPF = 2
    RESAMPLING_CHAIN = 3
    # 4 is that of `simplex_laws.PURPOSE`.


def philox_4x32(counter, key):
    """Return the four words that Philox4x32-10 makes of a counter, the definition of this module.

    Parameters
    ----------
    counter : four arrays or scalars of uint64, each below 2**32; they broadcast
    key : two arrays or scalars of uint64, each below 2**32; they broadcast too

    Returns
    -------
    four arrays of uint64, each below 2**32
    """
    return _rounds(counter, _round_keys(key))


def philox_second_word(counter, key) -> np.ndarray:
    """Return the second word of `philox_4x32` alone, for about four fifths of the work."""
    *others, (_, k1), _ = _round_keys(key)
    c0, _, _, c3 = _rounds(counter, others)
    c2 = ((c0 * _MULTIPLIERS[0]) >> _HALF) ^ c3 ^ k1
    return (c2 * _MULTIPLIERS[1]) & _LOW


def _rounds(counter, keys):
    """Return the four words after the rounds of these keys."""
    c0, c1, c2, c3 = counter
    for step, (k0, k1) in enumerate(keys):
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = right >> _HALF, left >> _HALF
        if step < MIXING_ROUNDS:
            c0, c2 = c0 ^ (c1 ^ k0), c2 ^ (c3 ^ k1)
        else:
            # By now all words have their full shape, and new arrays cost more than the arithmetic.
            c0 ^= c1
            c0 ^= k0
            c2 ^= c3
            c2 ^= k1
        right &= _LOW
        left &= _LOW
        c1, c3 = right, left
    return c0, c1, c2, c3


def split_words(value) -> tuple:
    """Return the low and the high 32 bits of integers from 0 to 2**64 - 1, as uint64."""
    whole = np.asarray(value, dtype=np.uint64)[()]
    return whole & _LOW, whole >> _HALF


def last_word(purpose: Purpose, trial: int = 0) -> np.uint64:
    """Return the fourth word of a counter."""
    if trial >= 2**24:
        raise OverflowError(f"trial is {trial}; a counter holds 24 bits of it")
    return np.uint64((purpose << 24) | trial)


def random_bits(
    shape, seed: int, *, offset: int = 0, stream: int = 0, device="cpu", impl: str | None = None
) -> torch.Tensor:
    """Return words of the sequence (seed, stream) from word `offset` on.

    Parameters
    ----------
    shape : int or tuple of int
    seed, offset : int from 0 to 2**64 - 1
    stream : int from 0 to 2**32 - 1
    device : torch.device or str
    impl : {"definition", "triton"}, optional
        See `kempe_nb.dispatch`.

    Returns
    -------
    int64 `shape`, values from 0 to 2**32 - 1

    Raises
    ------
    ValueError
        For a negative size or an argument out of its range.
    """
    return _read("random_bits", "bits", shape, seed, offset, stream, device, impl)


def uniform(
    shape,
    seed: int,
    *,
    offset: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device="cpu",
    impl: str | None = None,
) -> torch.Tensor:
    """Return uniform numbers in [0, 1), `shape`, of dtype float32 or float64.

    A float32 is the upper 24 bits of one word, a float64 the upper 53 bits of two, each times a
    power of two: every value is exact, and 1 never occurs. `offset` counts words, so the next call
    continues at offset + n for n float32 numbers and at offset + 2 n for float64.

    Parameters and errors are those of `random_bits`; a dtype other than the two is a ValueError.
    """
    kinds = {torch.float32: "float32", torch.float64: "float64"}
    if not isinstance(dtype, torch.dtype) or dtype not in kinds:
        raise ValueError(f"dtype is {dtype}; accepted are torch.float32 and torch.float64")
    return _read("uniform", kinds[dtype], shape, seed, offset, stream, device, impl)


def integers(
    shape,
    seed: int,
    *,
    high: int,
    low: int = 0,
    offset: int = 0,
    stream: int = 0,
    device="cpu",
    impl: str | None = None,
) -> torch.Tensor:
    """Return integers from `low` to `high` - 1, int64 `shape`, each with the same probability.

    Number i uses the blocks (offset + i, stream, trial) for trial 0, 1, ...: the lowest bits of two
    words, as many as high - low - 1 has, until they are below high - low. There is no remainder of
    a division and so no bias. `offset` counts integers.

    Parameters and errors are those of `random_bits`; `low` < `high`, and `low` and `high` - 1 must
    fit into int64.
    """
    span = _checked_span(low, high)
    size, seed, offset, stream, device = _checked(shape, seed, offset, stream, device)
    check_end(offset, math.prod(size))
    choice = OPERATION.choose(device, impl, function="integers")
    if choice.implementation == "triton":
        from kempe_nb.kernels.triton import philox as device_code

        return device_code.integers(size, seed, offset, stream, low, span, device)
    values = np.empty(math.prod(size), dtype=np.int64)
    for start, stop in chunks(len(values)):
        values[start:stop] = _integers(start + offset, stop - start, seed, stream, span)
    values += np.int64(low)
    return torch.from_numpy(values).reshape(size).to(device)


def minimum_bytes(numbers: int, itemsize: int = 4) -> int:
    """Return the bytes that must be written; there is no input."""
    return numbers * itemsize


OPERATION = Operation(
    "philox",
    dtypes=(torch.int64, torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
    exact=True,
    functions=("integers", "random_bits", "uniform"),
)


def chunks(size: int) -> Iterator[tuple[int, int]]:
    """Return the bounds of consecutive parts of at most `CHUNK`."""
    for start in range(0, size, CHUNK):
        yield start, min(start + CHUNK, size)


def _read(name, kind, shape, seed, offset, stream, device, impl) -> torch.Tensor:
    """Return `shape` numbers made of the words of a sequence, by the chosen implementation."""
    size, seed, offset, stream, device = _checked(shape, seed, offset, stream, device)
    words = math.prod(size) * (2 if kind == "float64" else 1)
    check_end(offset, words)
    choice = OPERATION.choose(device, impl, function=name)
    if choice.implementation == "triton":
        from kempe_nb.kernels.triton import philox as device_code

        return device_code.read(kind, size, seed, offset, stream, device)
    values = _convert(_words(offset, words, seed, stream), kind)
    return torch.from_numpy(values).reshape(size).to(device)


def _words(offset: int, count: int, seed: int, stream: int) -> np.ndarray:
    """Return `count` words from word `offset` on, uint64."""
    first, skip = divmod(offset, 4)
    blocks = -(-(skip + count) // 4) if count else 0
    found = np.empty((blocks, 4), dtype=np.uint64)
    key, tail = split_words(seed), (np.uint64(stream), last_word(Purpose.WORDS))
    for start, stop in chunks(blocks):
        index = np.arange(stop - start, dtype=np.uint64) + np.uint64(first + start)
        for column, word in enumerate(philox_4x32((*split_words(index), *tail), key)):
            found[start:stop, column] = word
    return found.reshape(-1)[skip : skip + count]


def _convert(words: np.ndarray, kind: str) -> np.ndarray:
    if kind == "bits":
        return words.astype(np.int64)
    if kind == "float32":
        return (words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)
    return uniform_53(words[0::2], words[1::2])


def uniform_53(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return float64 numbers in [0, 1) from the upper 53 bits of two words."""
    return (((high << _HALF) | low) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _integers(start: int, count: int, seed: int, stream: int, span: int) -> np.ndarray:
    """Return `count` integers below `span` by rejection, from number `start` on."""
    mask = np.uint64((1 << (span - 1).bit_length()) - 1)
    key = split_words(seed)
    values, pending = np.empty(count, dtype=np.uint64), np.arange(count, dtype=np.uint64)
    trial = 0
    while len(pending):
        index = split_words(pending + np.uint64(start))
        last = last_word(Purpose.INTEGERS, trial)
        words = philox_4x32((*index, np.uint64(stream), last), key)
        proposed = ((words[1] << _HALF) | words[0]) & mask
        values[pending] = proposed
        pending = pending[proposed > np.uint64(span - 1)]
        trial += 1
    return values.view(np.int64)


def _round_keys(key) -> list[tuple]:
    """Return the two words of each round; those of a scalar key are computed once."""
    if np.ndim(key[0]) or np.ndim(key[1]):
        return _made_round_keys(*key)
    return _kept_round_keys(int(key[0]), int(key[1]))


@functools.lru_cache
def _kept_round_keys(k0: int, k1: int) -> list[tuple]:
    return _made_round_keys(np.uint64(k0), np.uint64(k1))


def _made_round_keys(k0, k1) -> list[tuple]:
    steps = [[np.uint64(step * c % WORD) for c in _KEY_STEPS] for step in range(ROUNDS)]
    return [((k0 + first) & _LOW, (k1 + second) & _LOW) for first, second in steps]


def _checked(shape, seed, offset, stream, device):
    """Return the arguments that all functions share, checked."""
    draw = checked_draw(seed, offset, stream)
    return checked_shape(shape), *draw, torch.device(device)


def checked_draw(seed: object, offset: object, stream: object) -> tuple[int, int, int]:
    """Return where numbers are drawn from, or refuse what is no such place, by name."""
    return (
        checked_integer(seed, "seed", 0, 2**64 - 1),
        checked_integer(offset, "offset", 0, 2**64 - 1),
        checked_integer(stream, "stream", 0, 2**32 - 1),
    )


def check_end(offset: int, size: int) -> None:
    """Refuse to draw beyond the end of a stream."""
    if offset + size > 2**64:
        end = offset + size
        raise ValueError(
            f"offset is {offset}, and {size} from there end at {end}; a stream ends at 2**64"
        )


def _checked_span(low: int, high: int) -> int:
    low = checked_integer(low, "low", -(2**63), 2**63 - 1)
    high = checked_integer(high, "high", -(2**63), 2**63)
    if high <= low:
        raise ValueError(f"high is {high} and low is {low}; accepted is a high above low")
    return high - low
