"""Random numbers: known answers, an independent Philox of plain integers, and statistics."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from scipy import stats

from kempe_nb.kernels import philox
from kempe_nb.kernels.philox import Purpose, integers, random_bits, uniform

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
MASK = 2**32 - 1

words = st.integers(0, 2**32 - 1)
# Borders more often than chance would have them.
wide = st.integers(0, 2**64 - 1) | st.sampled_from(
    [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
)
#: Offsets that leave room for 64 words.
offsets = wide.map(lambda value: min(value, 2**64 - 64))
streams = words | st.sampled_from([0, 1, 2**31, 2**32 - 1])
sizes = st.integers(0, 21)
float_dtypes = st.sampled_from([torch.float32, torch.float64])


def reference(counter, key):
    """Return Philox4x32-10 of Python integers, after the paper's figure."""
    c0, c1, c2, c3 = counter
    for step in range(10):
        k0, k1 = ((k + step * constant) & MASK for k, constant in zip(key, KEY_STEPS, strict=True))
        left, right = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right & MASK, (left >> 32) ^ c3 ^ k1, left & MASK
    return c0, c1, c2, c3


def inverse(output, key):
    """Return the counter of four words."""
    c0, c1, c2, c3 = output
    for step in reversed(range(10)):
        k0, k1 = ((k + step * constant) & MASK for k, constant in zip(key, KEY_STEPS, strict=True))
        before0 = c3 * pow(MULTIPLIERS[0], -1, 2**32) & MASK
        before2 = c1 * pow(MULTIPLIERS[1], -1, 2**32) & MASK
        high0, high2 = MULTIPLIERS[0] * before0 >> 32, MULTIPLIERS[1] * before2 >> 32
        c0, c1, c2, c3 = before0, c0 ^ high2 ^ k0, before2, c2 ^ high0 ^ k1
    return c0, c1, c2, c3


def halves(value):
    return value & MASK, value >> 32


def reference_word(seed, stream, position):
    index, lane = divmod(position, 4)
    return reference((*halves(index), stream, 0), halves(seed))[lane]


def reference_integer(seed, stream, position, span):
    mask = (1 << (span - 1).bit_length()) - 1
    for trial in itertools.count():
        counter = (*halves(position), stream, (1 << 24) | trial)
        low, high, *_ = reference(counter, halves(seed))
        value = ((high << 32) | low) & mask
        if value < span:
            return value


def as_words(*values):
    return tuple(np.uint64(value) for value in values)


def draws(offset, size, seed=3, stream=0):
    """Return one part of a sequence from each of the functions."""
    where = {"offset": offset, "stream": stream}
    return {
        "bits": random_bits(size, seed, **where),
        "float32": uniform(size, seed, **where),
        "small": integers(size, seed, high=6, **where),
        "wide": integers(size, seed, low=-(2**62), high=2**62 + 1, **where),
    }


# The generator


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key, expected):
    assert tuple(map(int, philox.philox_4x32(as_words(*counter), as_words(*key)))) == expected
    assert reference(counter, key) == expected


@given(st.tuples(words, words, words, words), st.tuples(words, words))
@settings(deadline=None)
def test_it_is_the_philox_of_plain_integers_and_a_bijection(counter, key):
    output = reference(counter, key)
    assert tuple(map(int, philox.philox_4x32(as_words(*counter), as_words(*key)))) == output
    assert inverse(output, key) == counter


def test_counters_and_keys_broadcast():
    index, stream = np.arange(3, dtype=np.uint64)[:, None], np.arange(2, dtype=np.uint64)
    low = np.uint64([7, 8])[:, None, None]
    found = philox.philox_4x32((index, np.uint64(1), stream, np.uint64(2)), (low, np.uint64(5)))
    for i, j, k in np.ndindex(2, 3, 2):
        expected = reference((j, 1, k, 2), (7 + i, 5))
        assert tuple(int(word[i, j, k]) for word in found) == expected


def test_the_second_word_alone_is_that_of_the_block():
    index, stream = np.arange(7, dtype=np.uint64)[:, None], np.uint64([0, MASK])
    for high in (np.uint64(0), index * np.uint64(5)):
        for low in (np.uint64(9), np.uint64([7, 8])):
            counter, key = (index, high, stream, np.uint64(2)), (low, np.uint64(MASK))
            alone = philox.philox_second_word(counter, key)
            assert np.array_equal(alone, philox.philox_4x32(counter, key)[1])


def test_each_of_many_counters_gives_another_block():
    index = np.arange(2**16, dtype=np.uint64)
    block = np.stack(philox.philox_4x32((index, *as_words(0, 0, 0)), as_words(1, 2)), axis=1)
    assert block.max() <= MASK
    assert len(np.unique(block, axis=0)) == len(index)


def test_one_bit_of_the_counter_or_the_key_flips_half_of_the_block():
    rng = np.random.default_rng(0)
    before = rng.integers(0, 2**32, (6, 200), dtype=np.uint64)
    output = np.stack(philox.philox_4x32(before[:4], before[4:]))
    for word, bit in itertools.product(range(6), range(32)):
        after = before.copy()
        after[word] ^= np.uint64(1 << bit)
        flipped = np.stack(philox.philox_4x32(after[:4], after[4:])) ^ output
        # 200 blocks of 128 bits: a standard deviation of the mean of 0.31 %, and five of them.
        assert abs(np.bitwise_count(flipped).mean() / 32 - 0.5) < 0.016


# Sequences


@given(wide, streams, offsets, sizes)
@settings(deadline=None, max_examples=60)
@example(2**64 - 1, 2**32 - 1, 2**64 - 64, 21)
@example(0, 0, 2**34 - 5, 9)
def test_words_are_those_of_the_reference(seed, stream, offset, size):
    found = random_bits(size, seed, offset=offset, stream=stream)
    assert found.dtype == torch.int64
    assert found.tolist() == [reference_word(seed, stream, offset + i) for i in range(size)]


@given(wide, streams, offsets, sizes)
@settings(deadline=None, max_examples=60)
def test_floats_are_the_upper_bits_of_the_words(seed, stream, offset, size):
    where = {"offset": offset, "stream": stream}
    first = [reference_word(seed, stream, offset + i) for i in range(2 * size)]
    single = uniform(size, seed, **where)
    assert single.dtype == torch.float32
    assert single.tolist() == [(word >> 8) * 2**-24 for word in first[:size]]
    double = uniform(size, seed, dtype=torch.float64, **where)
    assert double.dtype == torch.float64
    pairs = zip(first[0::2], first[1::2], strict=True)
    assert double.tolist() == [((high << 32 | low) >> 11) * 2**-53 for low, high in pairs]


@given(wide, streams, offsets, sizes, st.data())
@settings(deadline=None, max_examples=60)
def test_integers_are_the_first_words_below_the_span(seed, stream, offset, size, data):
    span = data.draw(st.integers(1, 300) | st.integers(1, 2**64 - 1) | st.just(2**63 + 1))
    low = data.draw(st.integers(-(2**63), 2**63 - 1 - span) if span < 2**63 else st.just(-(2**63)))
    found = integers(size, seed, low=low, high=low + span, offset=offset, stream=stream)
    assert found.dtype == torch.int64
    expected = [low + reference_integer(seed, stream, offset + i, span) for i in range(size)]
    assert found.tolist() == expected


@given(wide, streams, offsets, sizes, sizes)
@settings(deadline=None, max_examples=60)
def test_a_sequence_read_in_two_parts_is_the_sequence_read_in_one(seed, stream, start, m, n):
    whole, head = draws(start, m + n, seed, stream), draws(start, m, seed, stream)
    tail = draws(start + m, n, seed, stream)
    for kind, values in whole.items():
        assert torch.equal(values, torch.cat([head[kind], tail[kind]])), kind


@given(wide, streams, offsets, st.integers(0, 15), st.integers(0, 15))
@settings(deadline=None, max_examples=60)
def test_doubles_continue_after_two_words_each(seed, stream, start, m, n):
    def read(offset, size):
        return uniform(size, seed, offset=offset, stream=stream, dtype=torch.float64)

    whole = read(start, m + n)
    assert torch.equal(whole, torch.cat([read(start, m), read(start + 2 * m, n)]))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 13])
def test_the_size_of_a_chunk_changes_nothing(chunk, monkeypatch):
    before = [draws(offset, 50) for offset in (0, 3, 2**64 - 50)]
    doubles = uniform(50, 3, offset=5, dtype=torch.float64)
    monkeypatch.setattr(philox, "CHUNK", chunk)
    for expected, offset in zip(before, (0, 3, 2**64 - 50), strict=True):
        for kind, values in draws(offset, 50).items():
            assert torch.equal(values, expected[kind]), kind
    assert torch.equal(uniform(50, 3, offset=5, dtype=torch.float64), doubles)


def test_a_sequence_is_the_same_in_every_shape():
    for call in (random_bits, uniform, lambda shape, seed: integers(shape, seed, high=100)):
        flat = call(24, 5)
        assert flat.shape == (24,)
        assert torch.equal(call((2, 3, 4), 5), flat.reshape(2, 3, 4))
        assert torch.equal(call(torch.Size([24, 1]), 5), flat[:, None])
        assert torch.equal(call([24], 5), flat)
        scalar = call((), 5)
        assert scalar.shape == () and scalar == flat[0]
        for empty in (0, (0,), (3, 0, 2), (0, 2**40)):
            assert call(empty, 5).shape == (torch.Size([0]) if empty == 0 else empty)


def test_numpys_integers_are_integers():
    expected = integers((2, 3), 2**64 - 1, low=-5, high=9, offset=4, stream=7)
    found = integers(
        (np.int64(2), np.uint8(3)),
        np.uint64(2**64 - 1),
        low=np.int8(-5),
        high=np.int16(9),
        offset=np.uint64(4),
        stream=np.int32(7),
    )
    assert torch.equal(found, expected)
    assert torch.equal(random_bits(np.int8(6), 0), random_bits(6, np.int8(0)))


def test_results_are_the_callers_own():
    first, second = random_bits(5, 0), random_bits(5, 0)
    first.zero_()
    assert torch.equal(second, random_bits(5, 0)) and second.all()


def test_the_device_is_that_of_the_argument():
    for call in (random_bits, uniform, lambda *args, **how: integers(*args, high=3, **how)):
        assert call((2, 3), 0, device="meta").device == torch.device("meta")
        with torch.device("meta"):
            assert call((2, 3), 0).device == torch.device("cpu")


# No block is used twice


@pytest.fixture
def used(monkeypatch):
    """The blocks that are computed, as (counter, key), in their order."""
    blocks, original = [], philox.philox_4x32

    def recording(counter, key):
        parts = np.broadcast_arrays(*counter, *key)
        blocks.extend(zip(*(part.reshape(-1).tolist() for part in parts), strict=True))
        return original(counter, key)

    monkeypatch.setattr(philox, "philox_4x32", recording)
    return blocks


def test_streams_purposes_trials_and_offsets_never_share_a_block(used):
    for stream, start in itertools.product((0, 1, 2**32 - 1), (0, 40, 2**34, 2**63, 2**64 - 40)):
        random_bits(40, 9, offset=start, stream=stream)
        # A span just above a power of two: about every second trial is rejected.
        integers(40, 9, low=-1, high=2**20, offset=start, stream=stream)
    assert len(used) == len(set(used))
    # 10 blocks for 40 words; one for each trial of an integer.
    bits = [block for block in used if block[3] >> 24 == Purpose.WORDS]
    assert len(bits) == 15 * 10
    assert len(used) - len(bits) > 15 * 40 * 1.5
    assert {block[4:] for block in used} == {(9, 0)}


def test_the_counter_is_index_stream_purpose_and_trial(used):
    random_bits(5, 2**40 + 3, offset=2**35 + 2, stream=6)
    index = 2**33
    expected = [(i & MASK, i >> 32, 6, 0, 3, 2**8) for i in (index, index + 1)]
    assert used == expected
    used.clear()
    integers(2, 2**40 + 3, high=2**10, offset=2**35 - 1, stream=6)
    expected = [(i & MASK, i >> 32, 6, 1 << 24, 3, 2**8) for i in (2**35 - 1, 2**35)]
    assert used == expected


def test_no_number_computes_no_block(used):
    for call in (random_bits, uniform, lambda *args, **how: integers(*args, high=3, **how)):
        call((3, 0), 0, offset=5)
    assert used == []


def test_purposes_differ_and_fit_into_a_counter():
    values = [purpose.value for purpose in Purpose.__members__.values()]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 2**8 for value in values)
    last = [philox.last_word(p, trial) for p in Purpose for trial in (0, 1, 2**24 - 1)]
    assert len(set(last)) == len(last)
    assert max(last) < 2**32


def test_trials_that_do_not_fit_are_an_error():
    with pytest.raises(OverflowError, match="trial is 16777216; a counter holds 24 bits of it"):
        philox.last_word(Purpose.INTEGERS, 2**24)


# Floats


def constant_words(monkeypatch, *values):
    monkeypatch.setattr(
        philox,
        "philox_4x32",
        lambda counter, key: [np.full_like(counter[0], value) for value in values],
    )


@pytest.mark.parametrize(
    ("word", "single", "double"),
    [
        (0, 0.0, 0.0),
        (MASK, 1 - 2**-24, 1 - 2**-53),
        (0xFF, 0.0, (0xFF000000FF >> 11) * 2**-53),
        (0x100, 2**-24, (0x10000000100 >> 11) * 2**-53),
        (2**31, 0.5, 0.5 + 2**-33),
    ],
)
def test_the_lowest_and_the_highest_words(word, single, double, monkeypatch):
    constant_words(monkeypatch, *[word] * 4)
    assert set(random_bits(9, 0).tolist()) == {word}
    assert set(uniform(9, 0).tolist()) == {single}
    assert set(uniform(9, 0, dtype=torch.float64).tolist()) == {double}


def test_the_second_word_of_a_double_is_the_upper_one(monkeypatch):
    constant_words(monkeypatch, 0, 2**31, 0, 2**31)
    assert set(uniform(3, 0, dtype=torch.float64).tolist()) == {0.5}


@given(wide, offsets, float_dtypes)
@settings(deadline=None, max_examples=40)
def test_floats_are_multiples_of_their_unit_below_one(seed, offset, dtype):
    unit = 2.0**-24 if dtype == torch.float32 else 2.0**-53
    values = uniform(30, seed, offset=offset, dtype=dtype).to(torch.float64)
    assert ((values >= 0) & (values < 1)).all()
    assert torch.equal(values / unit, (values / unit).round())


SEEDS = range(10)
#: Fixed seeds make these tests exact; the bounds are what chance exceeds once in 10,000 times.
RARE = 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floats_have_the_moments_of_the_uniform_law(dtype):
    n = 100_000
    values = torch.stack([uniform(n, seed, dtype=dtype).double() for seed in SEEDS])
    # Standard deviations of x: sqrt(1/12); of (x - 1/2)^2: sqrt(1/180).
    for power, expected, spread in ((1, 0.0, 1 / 12), (2, 1 / 12, 1 / 180)):
        means = ((values - 0.5) ** power).mean(dim=1)
        z = (means - expected) / (spread / n) ** 0.5
        assert z.abs().max() < stats.norm.isf(RARE / 2 / len(SEEDS))
        assert RARE < stats.chi2(len(SEEDS)).sf(float(z.square().sum())) < 1 - RARE
    # Neighbours in a sequence, and the same position under two seeds, are uncorrelated.
    centred = (values - 0.5) * 12**0.5
    for product in (centred[:, 1:] * centred[:, :-1], centred[1:] * centred[:-1]):
        assert abs(float(product.sum())) / product.numel() ** 0.5 < stats.norm.isf(RARE / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floats_fill_their_cells_evenly(dtype):
    cells, n = 256, 100_000
    # The leading eight bits, those after them, and the last eight that a float32 has.
    for shift in (2**8, 2**16, 2**24):
        digits = [uniform(n, seed, dtype=dtype).double() * shift % cells for seed in SEEDS]
        assert_even([np.bincount(digit.int(), minlength=cells) for digit in digits])


# Integers


def assert_even(counts):
    """Compare the counts of every seed, and of all seeds, with one probability for all cells."""
    p = [stats.chisquare(count).pvalue for count in (*counts, np.sum(counts, axis=0))]
    assert min(p) > RARE and max(p) < 1 - RARE


@pytest.mark.parametrize("span", [2, 3, 5, 7, 10, 17, 64, 255, 257])
def test_integers_are_even(span):
    low = -(span // 2)
    draws = [integers(50_000, seed, low=low, high=low + span) for seed in SEEDS]
    counts = [np.bincount(draw - low, minlength=span) for draw in draws]
    assert all(len(count) == span for count in counts)
    assert_even(counts)


def test_integers_of_the_full_range_are_even():
    draws = [integers(50_000, seed, low=-(2**63), high=2**63 - 1) for seed in SEEDS]
    assert_even([np.bincount((draw >> 58) + 32, minlength=64) for draw in draws])
    assert_even([np.bincount(draw & 63, minlength=64) for draw in draws])


def test_a_span_above_half_of_the_range_loses_none():
    # 3/4 of the masked words are accepted; the three quarters of the range are equally frequent.
    draws = [integers(50_000, seed, low=-(2**63), high=2**62) for seed in SEEDS]
    assert_even([np.bincount((draw >> 62) + 2, minlength=3) for draw in draws])


def test_the_lowest_and_the_highest_integers(monkeypatch):
    constant_words(monkeypatch, 0, 0, 0, 0)
    assert integers(3, 0, low=-7, high=9).tolist() == [-7] * 3
    assert integers(3, 0, low=-(2**63), high=2**63).tolist() == [-(2**63)] * 3
    constant_words(monkeypatch, MASK, MASK, 0, 0)
    assert integers(3, 0, low=-7, high=9).tolist() == [8] * 3
    assert integers(3, 0, low=-(2**63), high=2**63).tolist() == [2**63 - 1] * 3
    assert integers(3, 0, low=2**63 - 2, high=2**63).tolist() == [2**63 - 1] * 3


@pytest.mark.parametrize("low", [-(2**63), -5, 0, 2**63 - 2])
def test_a_span_of_one_leaves_no_choice(low):
    assert integers((2, 2), 1, low=low, high=low + 1).tolist() == [[low] * 2] * 2


# Ends of the stream


def test_a_stream_can_be_read_to_its_end():
    last = reference_word(5, 0, 2**64 - 1)
    assert random_bits(1, 5, offset=2**64 - 1).tolist() == [last]
    assert uniform((), 5, offset=2**64 - 1).item() == (last >> 8) * 2**-24
    assert uniform(1, 5, offset=2**64 - 2, dtype=torch.float64).shape == (1,)
    assert integers(1, 5, high=2**40, offset=2**64 - 1).item() == reference_integer(
        5, 0, 2**64 - 1, 2**40
    )
    for call in (random_bits, uniform):
        assert call(0, 5, offset=2**64 - 1).shape == (0,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: random_bits(2, 0, offset=2**64 - 1),
        lambda: uniform((1, 2), 0, offset=2**64 - 1),
        lambda: uniform(1, 0, offset=2**64 - 1, dtype=torch.float64),
        lambda: integers(2, 0, high=5, offset=2**64 - 1),
    ],
)
def test_and_not_further(call):
    with pytest.raises(ValueError, match=r"from there end at 18446744073709551617; a stream"):
        call()


# Bad input

NO_INTEGERS = (-1, 2**64, 1.5, 1.0, True, np.True_, "a", None, np.int64(-1), np.float64(1), (1,))
CALLS = {
    "random_bits": random_bits,
    "uniform": uniform,
    "integers": lambda *args, **how: integers(*args, **{"high": 5, **how}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
@pytest.mark.parametrize(("name", "last"), [("seed", 64), ("offset", 64), ("stream", 32)])
def test_a_number_out_of_range_is_refused_by_name(name, last, value, call):
    arguments = {"seed": 0, name: value}
    with pytest.raises(ValueError) as error:
        call(3, arguments.pop("seed"), **arguments)
    assert str(error.value) == (
        f"{name} is {value!r}; accepted is an integer from 0 to 2**{last} - 1"
    )


def test_a_stream_has_32_bits():
    with pytest.raises(ValueError, match=r"stream is 4294967296; accepted is an integer from 0 to"):
        random_bits(1, 0, stream=2**32)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "shape",
    [
        -1,
        (2, -3),
        1.5,
        (2, 1.5),
        True,
        (1, True),
        "ab",
        "",
        None,
        [[1], 2],
        (None,),
        2**63,
        (0, 2**63),
    ],
    ids=repr,
)
def test_a_shape_that_is_none_is_refused_by_name(shape, call):
    with pytest.raises(ValueError) as error:
        call(shape, 0)
    assert str(error.value).startswith(f"shape is {shape!r}; accepted are ")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_shape_beyond_all_memory_is_an_error_of_memory_or_value(call):
    with pytest.raises((MemoryError, ValueError)):
        call((2**24, 2**24), 0)
    with pytest.raises((MemoryError, ValueError)):
        call(2**62, 0)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.int64, "float32", np.float32, float, None, []]
)
def test_another_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match="accepted are torch.float32 and torch.float64") as error:
        uniform(3, 0, dtype=dtype)
    assert str(error.value).startswith(f"dtype is {dtype}")


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0, 0, "high is 0 and low is 0; accepted is a high above low"),
        (5, 2, "high is 2 and low is 5; accepted is a high above low"),
        (0, -1, "high is -1 and low is 0; accepted is a high above low"),
        (0, 2**63 + 1, r"high is 9223372036854775809; accepted is an integer from -.* to 2\*\*63$"),
        (-(2**63) - 1, 0, r"low is -9223372036854775809; accepted is an integer from -922"),
        (2**63, 2**63, r"low is 9223372036854775808; accepted is an integer from -922"),
        (0, 2.0, r"high is 2\.0; accepted is an integer"),
        (0, True, "high is True; accepted is an integer"),
        ("0", 3, "low is '0'; accepted is an integer"),
        (0, None, "high is None; accepted is an integer"),
        (0, np.uint64(2**64 - 1), r"high is np\.uint64\(18446744073709551615\); accepted is"),
    ],
)
def test_bounds_that_are_none_are_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        integers(3, 0, low=low, high=high)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("impl", ["torch", "cuda", "", 3])
def test_an_unknown_implementation_is_refused(impl, call):
    with pytest.raises(ValueError, match="impl is .*; accepted are definition, triton, or None"):
        call(3, 0, impl=impl)


def test_nothing_warns():
    # Scalars of NumPy warn when they overflow, and arrays do not.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for offset in (0, 2**63, 2**64 - 8):
            draws(offset, 8, seed=2**64 - 1, stream=2**32 - 1)
            uniform((), 2**64 - 1, offset=offset, dtype=torch.float64)
            integers((), 2**64 - 1, low=-(2**63), high=2**63 - 1, offset=offset)
