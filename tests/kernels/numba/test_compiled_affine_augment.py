"""Compiled code of the augmentations: any number of threads, and vector code."""

import re

import numpy as np
import pytest
import torch

from kempe_nb import affine_augment, dispatch
from kempe_nb.kernels.affine_augment import COLUMNS
from kempe_nb.methods.augmentation_draws import draw_augmentations

if dispatch.numba_version():
    import numba

    from kempe_nb.kernels.numba import affine_augment as code

pytestmark = pytest.mark.numba

SHAPE = 3, 20, 64
#: Instructions on several numbers at once, of x86 and of ARM.
PACKED = r"\b(?:v?(?:add|sub|mul)ps|vcvttpd2dq|vcvttpd2qq|f(?:add|sub|mul)\s+v\d+\.4s)\b"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(count, effects):
    """Return images, what comes back, and rows."""
    rng = torch.Generator().manual_seed(0)
    images, v = torch.randn(2, count, 3, 11, 13, generator=rng)
    rows = draw_augmentations(count, (11, 13), np.random.default_rng(0), effects=effects)
    return images, v, rows


def pair(images, v, rows):
    images = images.detach().requires_grad_()
    made = affine_augment(images, rows, impl="numba")
    return made.detach(), torch.autograd.grad(made, images, v)[0]


@pytest.mark.parametrize("effects", [("colour", "rotation"), ("crop", "cutout", "flip")], ids=str)
def test_any_number_of_threads_gives_the_same_bits(effects, monkeypatch):
    monkeypatch.setattr(code, "GRAIN", 500)
    inputs = drawn(40, effects)
    one = pair(*inputs)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, pair(*inputs), one))


def test_images_that_are_copied_and_that_are_sampled_in_one_batch():
    """What one image leaves behind in the frame must not be seen in the next one."""
    images, v, turned = drawn(12, ("rotation", "scale", "crop"))
    _, _, copied = drawn(12, ("crop", "flip", "colour"))
    rows = torch.where((torch.arange(12) % 2 == 0)[:, None], turned, copied)
    together = pair(images, v, rows)
    for n in range(12):
        alone = pair(images[n : n + 1], v[n : n + 1], rows[n : n + 1])
        assert all(map(torch.equal, (each[n : n + 1] for each in together), alone))


def arguments(name):
    """Return arguments of a loop, as its callers hand them over."""
    channels, height, width = SHAPE
    frame, base, places, weights = code._scratch(np.ones(1, np.float32), SHAPE)
    image = np.ones(channels * height * width, np.float32)
    row = np.zeros(len(COLUMNS))
    colours = tuple(np.float32([0.5, 0.1, 0.2]))
    return {
        "_colours": (image, 0, row, SHAPE),
        "_write_row": (image, 0, 0, row, SHAPE, colours, base, frame, 1),
        "_place": (0, row, SHAPE, places, weights),
        "_colour": (image, 0, SHAPE, colours, base),
    }[name]


@pytest.mark.parametrize("name", ["_colours", "_write_row", "_place", "_colour"])
def test_inner_loops_are_vector_instructions(name):
    """An index that the compiler takes for negative costs a factor of five.

    What gathers and what spreads are loops over single pixels.
    """
    # Compiled anew: what comes from a cache has no assembly.
    fresh = numba.njit(nogil=True, error_model="numpy")(getattr(code, name).py_func)
    fresh(*arguments(name))
    (assembly,) = fresh.inspect_asm().values()
    wanted = PACKED if name != "_colours" else r"\b(?:v?addpd|fadd\s+v\d+\.2d)\b"
    assert len(re.findall(wanted, assembly)) >= 2
    assert not re.findall(r"\bvfn?m(?:add|sub)\d", assembly)
