"""A simulator of galaxies of nine classes.

The pictures are drawn, not observed. A galaxy is a bulge and an exponential disk, each a Sersic
profile I(R) = exp(-b [(R / R_e)^(1/n) - 1]) with half of its light inside of R_e; the disk may have
two logarithmic spiral arms and a bar, and is seen at an inclination. All parts have a colour. The
picture is blurred as by an atmosphere, gets noise, and is shown through an inverse hyperbolic sine.
Real galaxies have dust, satellites, clumps and classes that people disagree about; these have not.

The nine classes are those of the curated Galaxy Zoo 2 of Guan and others (arXiv 2311.17967, public
code); see `galaxy_votes`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d
from scipy.special import gamma, gammaincinv

from kempe_nb.checks import (
    checked_integer,
    checked_not_negative,
    checked_positive,
    keep_checked,
)

CLASSES = (
    "smooth, round",
    "smooth, in between",
    "smooth, cigar",
    "edge-on, bulge",
    "edge-on, no bulge",
    "barred spiral",
    "barred, no spiral",
    "spiral",
    "no bar, no spiral",
)
#: Light of each part in red, green and blue, with a mean of one.
COLOURS = {"bulge": (1.3, 1.0, 0.7), "disk": (0.85, 1.0, 1.15), "arms": (0.7, 1.0, 1.3)}
#: Width of a bar over its length, and the Sersic index of a disk.
BAR_WIDTH, DISK_INDEX = 0.3, 1.0
#: Points in each direction at which a pixel's light is sampled; even, so that none lies on the cusp
#: of a bulge in the middle of the picture.
SAMPLES = 4


@dataclass(frozen=True, eq=False)
class Galaxies:
    """What galaxies look like, one number of each kind for each, float64 [N].

    Attributes
    ----------
    flux : positive
        Light of the whole galaxy, in all of the plane; the mean of the three colours.
    bulge, bar : from 0
        Their shares of the light, together at most 1; the rest is the disk's.
    bulge_radius, disk_radius, bar_length : 0.001 to 10
        Radii of half of the light, and the half-length of the bar, over the side of the picture.
    bulge_index : 0.3 to 6
        Sersic index.
    bulge_ratio, disk_ratio : 0.02 to 1
        Short axis over long axis; that of the disk is also the bar's and the arms' inclination.
    angle : float
        Of the long axis against the horizontal one, in radians.
    bar_angle : float
        Of the bar, in the plane of the disk, in radians.
    arms : from 0 to 1
        Contrast of the spiral arms.
    pitch : float
        Between an arm and a circle, in radians; not a multiple of pi / 2. With a positive one an
        arm turns against the clock on its way out.

    Raises
    ------
    ValueError
        For numbers out of range, or not one of each kind for each galaxy. They are copied.
    """

    flux: np.ndarray
    bulge: np.ndarray
    bar: np.ndarray
    bulge_radius: np.ndarray
    disk_radius: np.ndarray
    bar_length: np.ndarray
    bulge_index: np.ndarray
    bulge_ratio: np.ndarray
    disk_ratio: np.ndarray
    angle: np.ndarray
    bar_angle: np.ndarray
    arms: np.ndarray
    pitch: np.ndarray

    def __post_init__(self):
        values = {
            each.name: real_numbers(getattr(self, each.name), each.name) for each in fields(self)
        }
        if values["flux"].ndim != 1:
            raise ValueError(f"flux has shape {values['flux'].shape}; accepted is [N]")
        for name, value in values.items():
            if value.shape != values["flux"].shape:
                raise ValueError(
                    f"{name} has shape {value.shape}; accepted is that of flux, "
                    f"{values['flux'].shape}"
                )
            low, high, said = _RANGES.get(name, (-math.inf, math.inf, "finite numbers"))
            if not (np.isfinite(value) & (value >= low) & (value <= high)).all():
                wrong = value[~(np.isfinite(value) & (value >= low) & (value <= high))][0]
                raise ValueError(f"{name} holds {wrong!r}; accepted are {said}")
        if (values["bulge"] + values["bar"] > 1 + 1e-12).any():
            raise ValueError("bulge and bar hold shares above 1 together; accepted is up to 1")
        if (np.abs(np.sin(2 * values["pitch"])) < 1e-6).any():
            raise ValueError("pitch holds a multiple of pi / 2; accepted are other angles")
        for value in values.values():
            value.setflags(write=False)
        keep_checked(self, **values)

    def __len__(self) -> int:
        return len(self.flux)


def real_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Return a copy in float64 of real numbers, or refuse them by name."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {values.dtype}; accepted are real numbers")
    return np.array(values, np.float64)


_LENGTH = (1e-3, 10.0, "numbers from 0.001 to 10")
_RATIO = (0.02, 1.0, "numbers from 0.02 to 1")
_SHARE = (0.0, 1.0, "numbers from 0 to 1")
_RANGES = {
    "flux": (1e-30, 1e30, "numbers from 1e-30 to 1e30"),
    "bulge": _SHARE,
    "bar": _SHARE,
    "arms": _SHARE,
    "bulge_radius": _LENGTH,
    "disk_radius": _LENGTH,
    "bar_length": _LENGTH,
    "bulge_index": (0.3, 6.0, "numbers from 0.3 to 6"),
    "bulge_ratio": _RATIO,
    "disk_ratio": _RATIO,
}


def sersic_b(index: ArrayLike) -> np.ndarray:
    """Return the b with which half of the light of a Sersic profile lies inside of R_e.

    The index is positive, of any shape.
    """
    index = real_numbers(index, "index")
    if not (index > 0).all():
        raise ValueError(f"index holds {index[~(index > 0)].flat[0]!r}; accepted are positive ones")
    return gammaincinv(2 * index, 0.5)


def _sersic(x, y, radius, index, ratio):
    """Return the light of a Sersic profile in the plane per area, with a total of one."""
    b = sersic_b(index)
    total = 2 * math.pi * index * radius**2 * ratio * b ** (-2 * index) * gamma(2 * index)
    scaled = np.hypot(x, y / ratio) / radius
    return np.exp(-b * scaled ** (1 / index)) / total


def render(
    galaxies: Galaxies,
    size: int,
    *,
    blur: float = 0.0,
    noise: float = 0.0,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """Return pictures, float32 [N, 3, size, size]: red, green, blue; light per pixel.

    Light is sampled at 16 points of each pixel. Where a part is not wider than a pixel or two, or a
    bulge has a high index, its middle is not exact: of galaxies as `draw_galaxies` makes them at 32
    pixels a side and more, a few per cent of the light may be missing.

    Parameters
    ----------
    size : int
        Pixels a side, at least 4.
    blur : float
        Standard deviation of the blur, in pixels; 0, or at least 0.3.
    noise : float
        Standard deviation of Gaussian noise in every pixel and colour.
    generator : numpy.random.Generator, optional
        Needed for noise.

    Raises
    ------
    ValueError
        For a size below 4, a blur or noise out of range, noise without a generator, or galaxies
        that are none.
    """
    if not isinstance(galaxies, Galaxies):
        raise ValueError(f"galaxies are a {type(galaxies).__name__}; accepted are Galaxies")
    size = checked_integer(size, "size", 4)
    blur, noise = checked_not_negative(blur, "blur"), checked_not_negative(noise, "noise")
    if 0 < blur < 0.3:
        raise ValueError(f"blur is {blur!r}; accepted are 0, and numbers from 0.3 on")
    if noise:
        _check_generator(generator)
    # A margin, so that the blur brings light in from beyond the edge as it takes light out.
    margin = math.ceil(4 * blur)
    side = size + 2 * margin
    gather = _gathering(side, margin, blur)
    # Symmetric about the middle to the last bit, so a picture may be turned.
    steps = (np.arange(SAMPLES * side) - (SAMPLES * side - 1) / 2) / (SAMPLES * size)
    pictures = np.empty((len(galaxies), 3, size, size), np.float32)
    for number in range(len(galaxies)):
        own = {each.name: getattr(galaxies, each.name)[number] for each in fields(galaxies)}
        light = _light(own, steps[None, :], -steps[:, None]) / size**2
        pictures[number] = gather @ light @ gather.T
    if noise:
        pictures += noise * generator.standard_normal(pictures.shape, np.float32)
    return pictures


def _gathering(side: int, margin: int, blur: float) -> np.ndarray:
    """Return what blurs samples, takes means over pixels and cuts the margin off, one direction.

    float64 [side - 2 margin, SAMPLES side]
    """
    samples = np.eye(SAMPLES * side)
    if blur:
        # Of samples and not of pixels, on which a narrow Gaussian has another width.
        samples = gaussian_filter1d(samples, SAMPLES * blur, 0, mode="nearest", truncate=4.0)
    return samples.reshape(side, SAMPLES, -1).mean(1)[margin : side - margin]


def _check_generator(generator: object) -> None:
    if not isinstance(generator, np.random.Generator):
        raise ValueError(
            f"generator is a {type(generator).__name__}; accepted is a numpy.random.Generator"
        )


def _light(own: Mapping[str, float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the light per area at points of the plane, [3, H, W]."""
    cos, sin = math.cos(own["angle"]), math.sin(own["angle"])
    along, across = cos * x + sin * y, cos * y - sin * x
    bulge = _sersic(along, across, own["bulge_radius"], own["bulge_index"], own["bulge_ratio"])
    ratio = own["disk_ratio"]
    disk = _sersic(along, across, own["disk_radius"], DISK_INDEX, ratio)
    # In the plane of the disk.
    deep = across / ratio
    share = 1 - own["bulge"] - own["bar"]
    colours = {name: np.array(each)[:, None, None] for name, each in COLOURS.items()}
    bright, tint = own["bulge"] * bulge, colours["disk"]
    # Most galaxies have no bar or no arms, and need not wait for them.
    if own["bar"]:
        bright = bright + own["bar"] * _bar(own, along, deep)
    if own["arms"]:
        tint = tint + colours["arms"] * _arms(own, along, deep)
    return own["flux"] * (colours["bulge"] * bright + share * disk * tint)


def _arms(own: Mapping[str, float], along: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """Return the wave of two spiral arms, whose mean over each circle is zero."""
    radius = np.hypot(along, deep) / own["disk_radius"]
    turn = 2 * (np.arctan2(deep, along) - np.log(radius + 1e-6) / math.tan(own["pitch"]))
    # Arms begin outside of the middle.
    return own["arms"] * np.cos(turn) * -np.expm1(-((radius / 0.5) ** 2))


def _bar(own: Mapping[str, float], along: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """Return the light of a bar per area, with a total of one."""
    cos, sin = math.cos(own["bar_angle"]), math.sin(own["bar_angle"])
    length = own["bar_length"]
    oval = ((cos * along + sin * deep) / length) ** 2
    oval = oval + ((cos * deep - sin * along) / (BAR_WIDTH * length)) ** 2
    return np.exp(-(oval**2)) / (math.pi**1.5 / 2 * BAR_WIDTH * length**2 * own["disk_ratio"])


def stretched(pictures: np.ndarray, softening: float) -> np.ndarray:
    """Return pictures in which faint light can be seen, with the colours kept; like `pictures`.

    The mean m of the three colours becomes arcsinh(m / softening) softening; all three colours are
    multiplied by the same number (after Lupton and others, PASP 116, 133, 2004).

    Parameters
    ----------
    pictures : float32 or float64 [..., 3, H, W]
    softening : float
        Positive: light up to this is shown as it is.
    """
    softening = checked_positive(softening, "softening")
    if not isinstance(pictures, np.ndarray) or pictures.dtype not in (np.float32, np.float64):
        found = getattr(pictures, "dtype", type(pictures).__name__)
        raise ValueError(f"pictures are {found}; accepted is an array of float32 or float64")
    if pictures.ndim < 3 or pictures.shape[-3] != 3:
        raise ValueError(f"pictures have shape {pictures.shape}; accepted is [..., 3, H, W]")
    scaled = pictures.mean(-3, keepdims=True, dtype=np.float64) / softening
    # As arcsinh(x) / x, which is one at zero.
    small = np.abs(scaled) < 1e-6
    factor = np.where(small, 1, np.arcsinh(scaled) / np.where(small, 1, scaled))
    return (pictures * factor).astype(pictures.dtype)


def draw_galaxies(labels: ArrayLike, generator: np.random.Generator) -> Galaxies:
    """Return galaxies of given classes, drawn from ranges of our choice.

    Parameters
    ----------
    labels : int [N]
        Numbers of `CLASSES`.
    generator : numpy.random.Generator

    Raises
    ------
    ValueError
        For labels or a generator that are none.
    """
    _check_generator(generator)
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}; accepted are integers, [N]"
        )
    if ((labels < 0) | (labels >= len(CLASSES))).any():
        raise ValueError(
            f"labels are {labels.min()} to {labels.max()}; accepted are 0 to {len(CLASSES) - 1}"
        )
    count = len(labels)

    def drawn(low: float, high: float) -> np.ndarray:
        return generator.uniform(low, high, count)

    def by_class(*ranges: tuple[float, float]) -> np.ndarray:
        low, high = np.array(ranges)[labels].reshape(count, 2).T
        return low + (high - low) * generator.random(count)

    none, spread = (0.0, 0.0), (0.5, 0.9)
    smooth = 3 * [(1.0, 1.0)]
    return Galaxies(
        flux=np.exp(drawn(-0.3, 0.3)),
        bulge=by_class(*smooth, (0.3, 0.5), none, *4 * [(0.1, 0.25)]),
        bar=by_class(*5 * [none], *2 * [(0.15, 0.3)], *2 * [none]),
        bulge_radius=by_class(*3 * [(0.07, 0.12)], *6 * [(0.025, 0.045)]),
        disk_radius=drawn(0.14, 0.2),
        bar_length=drawn(0.12, 0.18),
        bulge_index=by_class(*3 * [(2.5, 4.0)], *6 * [(1.5, 3.0)]),
        bulge_ratio=by_class((0.9, 1.0), (0.5, 0.75), (0.2, 0.35), *6 * [(0.75, 1.0)]),
        disk_ratio=by_class(*3 * [spread], *2 * [(0.08, 0.15)], *4 * [spread]),
        angle=drawn(0, 2 * math.pi),
        bar_angle=drawn(0, 2 * math.pi),
        arms=by_class(*5 * [none], spread, none, spread, none),
        pitch=generator.choice((-1, 1), count) * np.deg2rad(drawn(12, 30)),
    )
