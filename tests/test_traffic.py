"""The byte meter: every count here is derived by hand from the ATen operations of the call."""

import threading

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from kempe_nb.traffic import Row, Traffic

DTYPES = (
    torch.bool,
    torch.int8,
    torch.int16,
    torch.int64,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
)
dtypes = st.sampled_from(DTYPES)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def metered(call) -> Traffic:
    with Traffic() as traffic:
        call()
    return traffic


def counts(call) -> tuple[int, int, int]:
    """Return the launches, the bytes read and the bytes written of a call."""
    traffic = metered(call)
    return traffic.launches, traffic.bytes_read, traffic.bytes_written


@pytest.fixture
def x():
    """Forty float32 numbers: 160 bytes."""
    return torch.arange(40, dtype=torch.float32).reshape(5, 8) / 40


# Elementwise operations


def test_a_sum_is_three_passes(x):
    y = torch.ones_like(x)
    traffic = metered(lambda: x + y)
    assert traffic.passes(x) == 3
    assert (traffic.launches, traffic.bytes_read, traffic.bytes_written) == (1, 320, 160)
    assert traffic.bytes == 480
    assert traffic.table() == [Row("aten.add", 1, 320, 160)]


@given(shapes, dtypes, dtypes)
@settings(deadline=None)
def test_a_product_reads_both_dtypes_and_writes_the_wider_one(shape, left, right):
    a, b = torch.ones(shape, dtype=left), torch.ones(shape, dtype=right)
    wide = torch.promote_types(left, right)
    n = a.numel()
    expected = (1, n * (left.itemsize + right.itemsize), n * wide.itemsize) if n else (0, 0, 0)
    assert counts(lambda: a * b) == expected


@given(shapes, dtypes)
@settings(deadline=None)
def test_a_comparison_writes_one_byte_for_an_element(shape, dtype):
    a = torch.ones(shape, dtype=dtype)
    n = a.numel()
    expected = (1, 2 * n * dtype.itemsize, n) if n else (0, 0, 0)
    assert counts(lambda: a == a) == expected


@given(st.integers(1, 30), st.integers(1, 30), dtypes)
@settings(deadline=None)
def test_broadcasting_reads_the_small_tensor_once(rows, columns, dtype):
    column, row = torch.ones(rows, 1, dtype=dtype), torch.ones(columns, dtype=dtype)
    read, written = (rows + columns) * dtype.itemsize, rows * columns * dtype.itemsize
    assert counts(lambda: column * row) == (1, read, written)
    wide = column.expand(rows, columns)
    assert counts(lambda: wide * row) == (1, read, written)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
@settings(deadline=None)
def test_overlapping_windows_read_the_memory_that_they_span(size, width, step):
    width = min(size, width)
    windows = torch.ones(size).unfold(0, width, step)
    distinct = {i * step + j for i in range(len(windows)) for j in range(width)}
    _, read, written = counts(lambda: windows + 1)
    assert read == 4 * len(distinct)
    assert written == 4 * windows.numel()


def test_a_slice_counts_what_it_holds(x):
    assert counts(lambda: x[:, ::2] + 1) == (1, 80, 80)
    assert counts(lambda: x[:, ::2].expand(3, 5, 4) + 1) == (1, 80, 240)
    assert counts(lambda: x.T.contiguous()) == (1, 160, 160)
    assert counts(lambda: x[2].mul_(2)) == (1, 32, 32)


def test_a_tensor_that_is_given_twice_is_read_twice(x):
    assert counts(lambda: x * x) == (1, 320, 160)


def test_numbers_of_python_are_free_and_tensors_of_one_element_are_not(x):
    assert counts(lambda: 2.5 * x) == (1, 160, 160)
    assert counts(lambda: torch.tensor(2.5) * x) == (1, 164, 160)
    assert counts(lambda: torch.add(x, 3, alpha=2)) == (1, 160, 160)


# What moves nothing


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T,
        lambda x: x.view(-1),
        lambda x: x.reshape(8, 5),
        lambda x: x[1:3, ::2],
        lambda x: x[None].expand(3, 5, 8),
        lambda x: x.detach(),
        lambda x: x.diagonal(),
        lambda x: x.unfold(1, 3, 1),
        lambda x: x.view(torch.int32),
        lambda x: (x.chunk(2), x.split([1, 4]), x.unbind(), torch.tensor_split(x, 3)),
        # Views whose schema does not say so.
        lambda x: (torch.unsafe_chunk(x, 2), torch.ops.aten._unsafe_view(x, [8, 5])),
        lambda x: torch.view_as_real(x.view(torch.complex64)).conj(),
        lambda x: (x.contiguous(), x.to(torch.float32), x.cpu(), x.float()),
        lambda x: (x.clone, x.shape, x.stride(), x.is_contiguous(), x.data_ptr(), len(x)),
        lambda x: x.view(-1).unsqueeze_(0).squeeze_(0).resize_(4),
    ],
)
def test_views_and_questions_about_shapes_move_nothing(view, x):
    assert counts(lambda: view(x)) == (0, 0, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.empty(4),
        lambda x: torch.empty_like(x),
        lambda x: torch.empty_strided((2, 3), (3, 1)),
        lambda x: torch.empty_permuted((2, 3), (1, 0)),
        lambda x: x.new_empty(7),
        lambda x: torch.zeros(0),
        lambda x: torch.empty(0, 3) * 2,
    ],
)
def test_memory_without_values_moves_nothing(make, x):
    assert counts(lambda: make(x)) == (0, 0, 0)


# Factories, fills and copies


@pytest.mark.parametrize(
    ("make", "written"),
    [
        (lambda x: torch.zeros(10), 40),
        (lambda x: torch.rand(10, dtype=torch.float64), 80),
        (lambda x: torch.arange(10), 80),
        (lambda x: torch.eye(3), 36),
        (lambda x: torch.full((2, 3), True), 6),
        (lambda x: torch.randperm(4), 32),
        (lambda x: torch.zeros_like(x), 160),
        (lambda x: torch.randn_like(x, dtype=torch.float64), 320),
        (lambda x: x.new_ones(3), 12),
        (lambda x: torch.fill(x, 2.0), 160),
        (lambda x: torch.normal(0.0, 1.0, (5,)), 20),
        (lambda x: torch.bernoulli(x, 0.5), 160),
    ],
)
def test_a_factory_only_writes(make, written, x):
    assert counts(lambda: make(x)) == (1, 0, written)


@pytest.mark.parametrize(
    "fill",
    [
        lambda x: x.fill_(1.0),
        lambda x: x.zero_(),
        lambda x: x.normal_(),
        lambda x: x.uniform_(),
        lambda x: x.random_(),
        lambda x: x.exponential_(),
        lambda x: x.cauchy_(),
        lambda x: x.geometric_(0.5),
        lambda x: x.log_normal_(),
        lambda x: x.bernoulli_(0.5),
        lambda x: torch._foreach_zero_([x]),
        lambda x: torch.zeros(5, 8, out=x),
    ],
)
def test_a_fill_writes_without_reading(fill, x):
    assert counts(lambda: fill(x)) == (1, 0, 160)


def test_what_a_fill_is_filled_with_is_read(x):
    source = torch.ones(8, dtype=torch.float64)
    assert counts(lambda: x.copy_(source)) == (1, 64, 160)
    assert counts(lambda: x.fill_(torch.tensor(1.0))) == (1, 4, 160)
    assert counts(lambda: x.bernoulli_(torch.full((5, 8), 0.5))) == (2, 160, 320)
    assert counts(lambda: torch.bernoulli(x)) == (1, 160, 160)
    assert counts(lambda: torch.normal(x, 1.0)) == (1, 160, 160)
    assert counts(lambda: torch._foreach_copy_([x], [x.clone()])) == (2, 320, 320)


def test_out_is_written_and_not_read(x):
    out, unsized = torch.empty(5, 8), torch.empty(0)
    assert counts(lambda: torch.add(x, x, out=out)) == (1, 320, 160)
    assert counts(lambda: torch.add(x, 1, out=unsized)) == (1, 160, 160)


def test_an_operation_in_place_reads_and_writes(x):
    y = torch.ones_like(x)
    assert counts(lambda: x.add_(y)) == (1, 320, 160)
    assert counts(lambda: x.mul_(2)) == (1, 160, 160)
    assert counts(lambda: torch._foreach_mul_([x, y], 2)) == (1, 320, 320)


def test_a_partial_write_counts_in_full(x):
    # x[mask] = 3: the mask (40 bytes) is made from x, then x, mask and the number are read.
    assert counts(lambda: x.__setitem__(x > 0.5, 3.0)) == (2, 160 + 160 + 40 + 4, 40 + 160)
    # x[0] = 3 is a fill of a view by a number in a tensor.
    assert counts(lambda: x.__setitem__(0, 3.0)) == (1, 4, 32)


def test_what_is_picked_counts_once(x):
    rows = torch.tensor([1, 3])
    # Two rows of 32 bytes and two integers; six times the same row is more than the tensor holds.
    assert counts(lambda: x.index_select(0, rows)) == (1, 64 + 16, 64)
    assert counts(lambda: F.embedding(rows, x)) == (1, 64 + 16, 64)
    assert counts(lambda: x.gather(1, rows[:, None])) == (1, 8 + 16, 8)
    many = torch.zeros(6, dtype=torch.int64)
    assert counts(lambda: x.index_select(0, many)) == (1, 160 + 48, 192)


# Reads of one tensor


def test_reads_of_a_tensor_and_its_views_only(x):
    other = torch.ones_like(x)
    with Traffic(x=x, other=other) as traffic:
        x + other
        x[1:3] * 2
        x.T.mul_(3)
        other.zero_()
        (x + 1).sum()
    # The whole (160 bytes), two rows of five, the whole in place and once more; never its copies.
    assert traffic.reads("x") == 1 + 2 / 5 + 1 + 1
    assert traffic.reads("other") == 1


def test_reads_of_what_is_not_watched_are_refused(x):
    with pytest.raises(ValueError, match="name is 'y'; watched are x"):
        Traffic(x=x).reads("y")
    with pytest.raises(ValueError, match="holds no bytes"):
        Traffic(x=x[:0]).reads("x")


# Lists, several results, values


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), dtypes)
@settings(deadline=None)
def test_cat_reads_every_part_once(sizes, dtype):
    parts = [torch.ones(size, 3, dtype=dtype) for size in sizes]
    moved = 3 * sum(sizes) * dtype.itemsize
    assert counts(lambda: torch.cat(parts)) == (int(moved > 0), moved, moved)


def test_several_results_are_all_written(x):
    # Values of 4 bytes and indices of 8 for each of the five rows.
    assert counts(lambda: x.max(dim=1)) == (1, 160, 5 * (4 + 8))
    assert counts(lambda: x.sort(dim=1)) == (1, 160, 40 * (4 + 8))
    assert counts(lambda: torch._foreach_add([x, x[0]], 1.0)) == (1, 192, 192)


def test_optional_tensors_may_be_missing(x):
    weight = torch.ones(8)
    # 160 + 160 bytes, and a mean and an inverse deviation for each of the five rows.
    assert counts(lambda: F.layer_norm(x, (8,))) == (1, 160, 160 + 40)
    assert counts(lambda: F.layer_norm(x, (8,), weight)) == (1, 192, 160 + 40)
    assert counts(lambda: x[:, torch.tensor([1, 3])]) == (1, 160 + 16, 40)


def test_a_search_that_finds_nothing_has_read_everything(x):
    assert counts(lambda: (x > 2).nonzero()) == (2, 160 + 40, 40)
    assert counts(lambda: x[x > 2]) == (2, 160 + 160 + 40, 40)
    assert counts(lambda: torch.empty(0).sum()) == (1, 0, 4)


def test_a_value_for_python_is_read(x):
    assert counts(lambda: x[0, 0].item()) == (1, 4, 0)
    assert counts(lambda: bool(x[0, 0] > 0)) == (2, 5, 1)
    assert counts(lambda: torch.equal(x, x)) == (1, 320, 0)


def test_a_conjugate_is_free_until_something_needs_it():
    z = torch.ones(10, dtype=torch.complex64)
    assert counts(lambda: z.conj()) == (0, 0, 0)
    # A copy that is conjugated (2 passes), and the sum (3).
    assert metered(lambda: z.conj() + z).passes(z) == 5


# Chains


def test_a_softmax_of_eager_steps_is_eight_passes_and_the_library_s_is_two():
    rows, columns = 6, 50
    x = torch.randn(rows, columns)

    def steps():
        shifted = x - x.amax(dim=1, keepdim=True)  # 1 and rows; 2 and rows
        numerators = shifted.exp()  # 2
        return numerators / numerators.sum(dim=1, keepdim=True)  # 1 and rows; 2 and rows

    traffic = metered(steps)
    assert traffic.launches == 5
    assert traffic.bytes == 4 * (8 * rows * columns + 4 * rows)
    assert metered(lambda: x.softmax(dim=1)).passes(x) == 2


def test_a_generation_of_poisson_counts():
    n = 1_000
    rate, values = torch.rand(n), torch.rand(n)

    def generation():
        drawn = torch.poisson(rate)  # reads 4 n, writes 4 n
        lost = drawn == 0  # reads 4 n, writes n
        return (lost * values).sum()  # reads n + 4 n, writes 4 n; reads 4 n, writes 4

    assert counts(generation) == (4, 17 * n, 9 * n + 4)


def test_the_table_adds_up_and_shows_the_largest_first(x):
    traffic = metered(lambda: ((x + 1) * 2 + x).sum())
    assert traffic.table() == [
        Row("aten.add", 2, 160 + 320, 320),
        Row("aten.mul", 1, 160, 160),
        Row("aten.sum", 1, 160, 4),
    ]
    assert repr(traffic).splitlines() == [
        "operation  launches  bytes read  bytes written",
        "aten.add          2         480            320",
        "aten.mul          1         160            160",
        "aten.sum          1         160              4",
        "total             4         800            484",
    ]


# Four rows of the design's table of eager operations, from their definitions.


def test_the_product_with_the_hessian_of_softmax_is_fourteen_passes():
    rows, classes = 8, 1_000
    logits, u = torch.randn(rows, classes), torch.randn(rows, classes)

    def product():
        p = logits.softmax(dim=1)  # 2
        # p u twice (6), its sum (1 and rows), p times the sum (2 and rows), the difference (3)
        return p * u - p * (p * u).sum(dim=1, keepdim=True)

    traffic = metered(product)
    assert traffic.launches == 6
    assert traffic.bytes == 4 * (14 * rows * classes + 2 * rows)
    assert round(traffic.passes(logits)) == 14


def test_a_step_of_projected_gradient_ascent_is_seventeen_passes():
    image, clean, gradient = torch.rand(3, 4, 32, 32).unbind()

    def step():
        moved = image + 0.01 * gradient.sign()  # 2, 2, 3
        inside = (moved - clean).clamp(-0.03, 0.03)  # 3, 2
        return (clean + inside).clamp(0, 1)  # 3, 2

    traffic = metered(step)
    assert traffic.launches == 7
    assert traffic.passes(image) == 17


def test_a_normalised_layer_is_five_passes_and_a_quarter():
    images, channels, side = 4, 8, 16
    x = torch.randn(images, channels, side, side)
    # The norm 2, and a mean and a deviation for each plane; the ReLU 2; the pool 1 and a quarter.
    traffic = metered(lambda: F.avg_pool2d(F.relu(F.group_norm(x, channels)), 2))
    assert traffic.launches == 3
    assert traffic.bytes == 5.25 * x.nbytes + 4 * 2 * images * channels


def test_the_distance_of_trajectories_is_four_passes():
    start, end, reached = torch.randn(3, 10_000).unbind()

    def distance():
        return F.mse_loss(reached, end, reduction="sum") / F.mse_loss(start, end, reduction="sum")

    traffic = metered(distance)
    assert traffic.launches == 3
    assert traffic.bytes == 4 * start.nbytes + 4 * (1 + 1 + 3)


# Autograd


def test_backward_counts():
    x = torch.randn(100, requires_grad=True)
    with Traffic() as traffic:
        loss = (x * x).sum()
    assert (traffic.launches, traffic.bytes) == (2, 3 * 400 + 400 + 4)
    with traffic:
        loss.backward()
    # The gradient of the loss is made (4 bytes), and is an expanded 1 for both products with x
    # (4 + 400 read, 400 written), whose sum is the gradient of x.
    assert traffic.table() == [
        Row("aten.mul", 3, 800 + 2 * 404, 400 + 2 * 400),
        Row("aten.add", 1, 800, 400),
        Row("aten.sum", 1, 400, 4),
        Row("aten.ones_like", 1, 0, 4),
    ]


def test_a_second_backward_pass_adds_to_the_gradient():
    x = torch.randn(100, requires_grad=True)
    x.sum().backward()
    loss = x.sum()
    # The 1 of the loss, then the gradient in place: it and the expanded 1 are read.
    assert counts(lambda: loss.backward()) == (2, 404, 404)


def test_double_backward_counts():
    x = torch.randn(100, requires_grad=True)
    with Traffic() as traffic:
        (gradient,) = torch.autograd.grad(x.pow(3).sum(), x, create_graph=True)
    before = traffic.bytes
    with traffic:
        torch.autograd.grad(gradient.sum(), x)
    assert traffic.bytes > before + 4 * x.nbytes


# PyTorch itself scripts functions when a process first makes a dual number.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_forward_derivatives_count_what_they_compute_and_not_how_shapes_are_found():
    x, v = torch.randn(100), torch.randn(100)

    def gradient(x):
        return torch.func.grad(lambda x: (x * x).sum() * 0.5)(x)

    traffic = metered(lambda: torch.func.jvp(gradient, (x,), (v,)))
    names = {row.operation for row in traffic.table()}
    assert "aten.mul" in names
    assert all(name.startswith("aten.") for name in names)


def test_a_tangent_that_is_zero_has_no_memory(x):
    zero = torch._efficientzerotensor((5, 8))
    # PyTorch finds the shape of the product on the meta device; the sum is a copy of x.
    assert counts(lambda: zero * x) == (0, 0, 0)
    assert counts(lambda: zero + x) == (1, 160, 160)
    assert counts(lambda: x.to("meta")) == (0, 0, 0)


def test_a_batched_operation_is_one_launch():
    x = torch.randn(10, 50)
    traffic = metered(lambda: torch.func.vmap(torch.exp)(x))
    assert (traffic.launches, traffic.passes(x)) == (1, 2)


def test_inference_mode_counts_the_same(x):
    weight, bias = torch.randn(3, 8), torch.randn(3)

    def call():
        return F.linear(x.T.reshape(5, 8), weight, bias).softmax(dim=1), x.reshape(-1)

    with torch.inference_mode():
        inferred = metered(call)
    assert inferred.table() == metered(call).table()
    assert {row.operation for row in inferred.table()} == {
        "aten.clone",
        "aten.addmm",
        "aten._softmax",
    }


def test_a_custom_operation_is_one_kernel(x):
    @torch.library.custom_op("kempe_nb_test::scaled_sum", mutates_args=("total",))
    def scaled_sum(x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        total += x.exp().log().sum()
        return x * 2

    total = torch.zeros(1)
    traffic = metered(lambda: scaled_sum(x, total))
    assert traffic.table() == [Row("kempe_nb_test.scaled_sum", 1, 164, 164)]


# Tensors of other kinds


def test_tensors_without_memory_count_as_if_they_had_it():
    def call(device):
        x = torch.empty(1_000, 1_000, device=device)
        return torch.tensor(2.0) * x.T.softmax(dim=0) + 1

    assert metered(lambda: call("meta")).table() == metered(lambda: call("cpu")).table()
    with torch._subclasses.FakeTensorMode():
        assert metered(lambda: call("cpu")).table() == metered(lambda: call("meta")).table()


def test_a_tensor_that_is_not_strided_is_refused_by_name():
    sparse = torch.eye(3).to_sparse()
    for call in (lambda: sparse.to_dense(), lambda: torch.eye(3).to_sparse(), lambda: sparse * 2):
        with pytest.raises(ValueError, match=r"aten\.\w+.* layout torch.sparse_coo; accepted is"):
            metered(call)
    jagged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    with pytest.raises(ValueError, match="layout torch.jagged"):
        metered(lambda: jagged * 2)


# The block


def test_nothing_counts_before_between_and_after_blocks(x):
    x + 1
    with Traffic() as traffic:
        x + 1
    x + 1
    assert traffic.launches == 1
    with traffic:
        x + 1
    x + 1
    assert traffic.launches == 2


def test_nested_meters_both_count(x):
    with Traffic() as outer:
        x + 1
        with Traffic() as inner:
            x * 2
        x - 3
    assert [row.operation for row in inner.table()] == ["aten.mul"]
    assert [row.operation for row in outer.table()] == ["aten.add", "aten.mul", "aten.sub"]


def test_a_meter_inside_itself_is_refused(x):
    with Traffic() as traffic:
        with pytest.raises(RuntimeError, match="this Traffic counts already"), traffic:
            pass
        x + 1
    assert traffic.launches == 1
    with traffic:
        x + 1
    assert traffic.launches == 2


def test_an_error_ends_the_block_and_keeps_the_counts(x):
    traffic = Traffic()
    with pytest.raises(RuntimeError, match="must match"), traffic:
        x + 1
        x + torch.ones(3)
    x + 1
    # The number 1, then what failed: torch.ones was made, and the sum was not.
    assert traffic.table() == [Row("aten.add", 1, 160, 160), Row("aten.ones", 1, 0, 12)]


def test_other_threads_are_not_seen(x):
    with Traffic() as traffic:
        thread = threading.Thread(target=lambda: x + 1)
        thread.start()
        thread.join()
    assert traffic.launches == 0


def test_the_meter_changes_no_result(x):
    expected = F.cross_entropy(x, torch.arange(5))
    with Traffic():
        found = F.cross_entropy(x, torch.arange(5))
    assert torch.equal(found, expected)


def test_an_empty_meter_has_a_table_too(x):
    traffic = Traffic()
    assert traffic.table() == []
    assert traffic.bytes == traffic.launches == 0
    assert repr(traffic).splitlines()[-1].split() == ["total", "0", "0", "0"]


def test_passes_over_nothing_are_refused(x):
    traffic = metered(lambda: x + 1)
    with pytest.raises(ValueError, match=r"tensor has shape \(0, 3\); accepted"):
        traffic.passes(torch.empty(0, 3))
    with pytest.raises(ValueError, match="layout torch.sparse_coo"):
        traffic.passes(torch.eye(3).to_sparse())


@given(st.integers(1, 5_000), st.integers(1, 20), st.data())
@settings(deadline=None, max_examples=50)
def test_traffic_of_a_chain_is_the_sum_of_its_operations(size, length, data):
    steps = [
        data.draw(st.sampled_from([torch.exp, torch.neg, torch.sin, torch.abs]))
        for _ in range(length)
    ]
    x = torch.zeros(size)

    def chain(value=x):
        for step in steps:
            value = step(value)

    traffic = metered(chain)
    assert traffic.launches == length
    assert traffic.passes(x) == 2 * length
