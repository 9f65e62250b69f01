"""A simulator of galaxies, and the classes that volunteers' votes make.

The pictures are drawn, not observed. A galaxy is a bulge and an exponential disk, each a Sersic
profile I(R) = exp(-b [(R / R_e)^(1/n) - 1]) with half of its light inside of R_e; the disk may have
two logarithmic spiral arms and a bar, and is seen at an inclination. All parts have a colour. The
picture is blurred as by an atmosphere, gets noise, and is shown through an inverse hyperbolic sine.
Real galaxies have dust, satellites, clumps and classes that people disagree about; these have not.

The nine classes are those of the curated Galaxy Zoo 2 of Guan and others (arXiv 2311.17967, public
code): a class's score is a product of fractions of votes along the decision tree.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter
from scipy.special import gamma, gammaincinv

from kempe_nb.checks import checked_integer, checked_not_negative, keep_checked

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
#: Not a galaxy; the tenth score, dropped from the curated set.
ARTIFACT = "star or artifact"
#: Light of each part in red, green and blue, with a mean of one.
COLOURS = {"bulge": (1.3, 1.0, 0.7), "disk": (0.85, 1.0, 1.15), "arms": (0.7, 1.0, 1.3)}
#: Width of a bar over its length, and the Sersic index of a disk.
BAR_WIDTH, DISK_INDEX = 0.3, 1.0
#: Points in each direction at which a pixel's light is sampled.
SAMPLES = 3


@dataclass(frozen=True)
class Galaxies:
    """What galaxies look like, one number of each kind for each, float64 [N].

    Attributes
    ----------
    flux : positive
        Light of the whole galaxy, in all of the plane; the mean of the three colours.
    bulge, bar : from 0
        Their shares of the light, together at most 1; the rest is the disk's.
    bulge_radius, disk_radius, bar_length : positive
        Radii of half of the light, and the half-length of the bar, over the side of the picture.
    bulge_index : positive
        Sersic index.
    bulge_ratio, disk_ratio : above 0, up to 1
        Short axis over long axis; that of the disk is also the bar's and the arms' inclination.
    angle : float
        Of the long axis against the horizontal one, in radians.
    bar_angle : float
        Of the bar, in the plane of the disk, in radians.
    arms : from 0 to 1
        Contrast of the spiral arms.
    pitch : float
        Between an arm and a circle, in radians; not a multiple of pi / 2.
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
            each.name: np.asarray(getattr(self, each.name), np.float64) for each in fields(self)
        }
        for name, value in values.items():
            if value.ndim != 1 or value.shape != values["flux"].shape:
                raise ValueError(
                    f"{name} has shape {value.shape}; accepted is one number for each galaxy, "
                    f"{values['flux'].shape[:1] or '[N]'}"
                )
            low, high, said = _RANGES.get(name, (-math.inf, math.inf, "finite numbers"))
            if not (np.isfinite(value) & (value >= low) & (value <= high)).all():
                wrong = value[~(np.isfinite(value) & (value >= low) & (value <= high))][0]
                raise ValueError(f"{name} holds {wrong:g}; accepted are {said}")
        if (values["bulge"] + values["bar"] > 1 + 1e-12).any():
            raise ValueError("bulge and bar hold shares above 1 together; accepted is up to 1")
        if (np.abs(np.sin(2 * values["pitch"])) < 1e-6).any():
            raise ValueError("pitch holds a multiple of pi / 2; accepted are other angles")
        keep_checked(self, **values)

    def __len__(self) -> int:
        return len(self.flux)


_TINY = 1e-6
_POSITIVE = (_TINY, math.inf, "positive finite numbers")
_RATIO = (0.02, 1.0, "numbers from 0.02 to 1")
_SHARE = (0.0, 1.0, "numbers from 0 to 1")
_RANGES = {
    "flux": _POSITIVE,
    "bulge": _SHARE,
    "bar": _SHARE,
    "arms": _SHARE,
    "bulge_radius": _POSITIVE,
    "disk_radius": _POSITIVE,
    "bar_length": _POSITIVE,
    "bulge_index": (0.3, 10.0, "numbers from 0.3 to 10"),
    "bulge_ratio": _RATIO,
    "disk_ratio": _RATIO,
}


def sersic_b(index: ArrayLike) -> np.ndarray:
    """Return the b with which half of the light of a Sersic profile lies inside of R_e."""
    return gammaincinv(2 * np.asarray(index, np.float64), 0.5)


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

    Parameters
    ----------
    size : int
        Pixels a side, at least 4.
    blur : float
        Standard deviation of the blur, in pixels.
    noise : float
        Standard deviation of Gaussian noise in every pixel and colour.
    generator : numpy.random.Generator, optional
        Needed for noise.

    Raises
    ------
    ValueError
        For a size below 4, a negative blur or noise, or noise without a generator.
    """
    size = checked_integer(size, "size", 4)
    blur, noise = checked_not_negative(blur, "blur"), checked_not_negative(noise, "noise")
    if noise and generator is None:
        raise ValueError("generator is None; accepted with noise is a numpy.random.Generator")
    # A margin, so that the blur brings light in from beyond the edge as it takes light out.
    margin = math.ceil(4 * blur)
    side = size + 2 * margin
    # Symmetric about the middle to the last bit, so a picture may be turned.
    steps = (np.arange(SAMPLES * side) - (SAMPLES * side - 1) / 2) / (SAMPLES * size)
    pictures = np.empty((len(galaxies), 3, size, size), np.float32)
    for number in range(len(galaxies)):
        own = {each.name: getattr(galaxies, each.name)[number] for each in fields(galaxies)}
        light = _light(own, steps[None, :], -steps[:, None]) / size**2
        if blur:
            # Of samples and not of pixels, on which a narrow Gaussian has another width.
            width = SAMPLES * blur
            light = gaussian_filter(light, (0, width, width), mode="nearest", truncate=4.0)
        light = light.reshape(3, side, SAMPLES, side, SAMPLES).mean((2, 4))
        pictures[number] = light[:, margin : margin + size, margin : margin + size]
    if noise:
        pictures += noise * generator.standard_normal(pictures.shape, np.float32)
    return pictures


def _light(own: Mapping[str, float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the light per area at points of the plane, [3, H, W]."""
    cos, sin = math.cos(own["angle"]), math.sin(own["angle"])
    along, across = cos * x + sin * y, cos * y - sin * x
    bulge = _sersic(along, across, own["bulge_radius"], own["bulge_index"], own["bulge_ratio"])
    ratio = own["disk_ratio"]
    disk = _sersic(along, across, own["disk_radius"], DISK_INDEX, ratio)
    # In the plane of the disk.
    deep = across / ratio
    radius = np.hypot(along, deep) / own["disk_radius"]
    turn = 2 * (np.arctan2(deep, along) - np.log(radius + _TINY) / math.tan(own["pitch"]))
    # Arms begin outside of the middle; their mean over each circle is zero.
    wave = own["arms"] * np.cos(turn) * -np.expm1(-((radius / 0.5) ** 2))
    cos, sin = math.cos(own["bar_angle"]), math.sin(own["bar_angle"])
    length = own["bar_length"]
    oval = ((cos * along + sin * deep) / length) ** 2
    oval = oval + ((cos * deep - sin * along) / (BAR_WIDTH * length)) ** 2
    bar = np.exp(-(oval**2)) / (math.pi**1.5 / 2 * BAR_WIDTH * length**2 * ratio)
    share = 1 - own["bulge"] - own["bar"]
    colours = {name: np.array(each)[:, None, None] for name, each in COLOURS.items()}
    return own["flux"] * (
        colours["bulge"] * (own["bulge"] * bulge + own["bar"] * bar)
        + share * disk * (colours["disk"] + colours["arms"] * wave)
    )


def stretched(pictures: np.ndarray, softening: float) -> np.ndarray:
    """Return pictures in which faint light can be seen, with the colours kept; same shape.

    The mean m of the three colours becomes arcsinh(m / softening) softening; all three colours are
    multiplied by the same number (after Lupton and others, PASP 116, 133, 2004).
    """
    checked_not_negative(softening, "softening")
    if not softening:
        raise ValueError("softening is 0; accepted is a positive number")
    mean = pictures.mean(-3, keepdims=True)
    scaled = mean / softening
    factor = np.where(np.abs(scaled) > 1e-6, np.arcsinh(scaled) / np.where(scaled, scaled, 1), 1)
    return (pictures * factor).astype(pictures.dtype)


def draw_galaxies(labels: ArrayLike, generator: np.random.Generator) -> Galaxies:
    """Return galaxies of given classes, drawn from ranges of our choice.

    Parameters
    ----------
    labels : int [N]
        Numbers of `CLASSES`.
    generator : numpy.random.Generator
    """
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


#: Answers to the tree's questions, whose fractions of votes the scores need.
VOTES = (
    "smooth",
    "featured",
    "artifact",
    "round",
    "in between",
    "cigar",
    "edge-on",
    "not edge-on",
    "rounded bulge",
    "boxy bulge",
    "no bulge",
    "bar",
    "no bar",
    "spiral",
    "no spiral",
)


def class_scores(fractions: Mapping[str, ArrayLike]) -> np.ndarray:
    """Return the scores of `CLASSES` and of an artifact, float64 [N, 10].

    A score is the product of the fractions of votes along the tree, undebiased. So a galaxy may
    have no score above one half, and its best class may still be clear.

    Parameters
    ----------
    fractions : mapping
        Each of `VOTES` -> numbers from 0 to 1, [N].

    Raises
    ------
    ValueError
        For a missing column, which is named, other shapes, or fractions outside of 0 to 1.
    """
    votes = {}
    for name in VOTES:
        if name not in fractions:
            raise ValueError(f"fractions lack the column {name!r}; accepted have all of VOTES")
        votes[name] = np.asarray(fractions[name], np.float64)
        shape = votes[VOTES[0]].shape
        if votes[name].ndim != 1 or votes[name].shape != shape:
            raise ValueError(
                f"fractions: {name!r} has shape {votes[name].shape}; accepted is that of "
                f"{VOTES[0]!r}, {shape}"
            )
        wrong = ~((votes[name] >= 0) & (votes[name] <= 1))
        if wrong.any():
            raise ValueError(
                f"fractions: {name!r} holds {votes[name][wrong][0]:g}; accepted are 0 to 1"
            )
    edge = votes["featured"] * votes["edge-on"]
    face = votes["featured"] * votes["not edge-on"]
    return np.stack(
        [
            votes["smooth"] * votes["round"],
            votes["smooth"] * votes["in between"],
            votes["smooth"] * votes["cigar"],
            edge * (votes["rounded bulge"] + votes["boxy bulge"]),
            edge * votes["no bulge"],
            face * votes["bar"] * votes["spiral"],
            face * votes["bar"] * votes["no spiral"],
            face * votes["no bar"] * votes["spiral"],
            face * votes["no bar"] * votes["no spiral"],
            votes["artifact"],
        ],
        1,
    )


def curated(scores: ArrayLike, per_class: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Return the galaxies that are surest of each class, and their classes.

    The class of a galaxy is that of its largest score; artifacts are dropped.

    Parameters
    ----------
    scores : [N, 10]
        As `class_scores` returns them.
    per_class : int
        Galaxies of each class.

    Returns
    -------
    rows, labels : int64 [9 per_class]
        Class after class, the surest first; ties in the order of the rows.

    Raises
    ------
    ValueError
        For a class with fewer galaxies; it is named.
    """
    scores = np.asarray(scores, np.float64)
    per_class = checked_integer(per_class, "per_class", 1)
    if scores.ndim != 2 or scores.shape[1] != len(CLASSES) + 1 or not np.isfinite(scores).all():
        raise ValueError(
            f"scores have shape {scores.shape}; accepted are finite numbers, [N, "
            f"{len(CLASSES) + 1}]"
        )
    best = scores.argmax(1) if len(scores) else np.zeros(0, np.int64)
    rows = []
    for number, name in enumerate(CLASSES):
        own = np.flatnonzero(best == number)
        if len(own) < per_class:
            raise ValueError(
                f"per_class is {per_class}, but {name!r} has {len(own)} galaxies; accepted is at "
                "most that"
            )
        order = np.argsort(-scores[own, number], kind="stable")
        rows.append(own[order[:per_class]])
    return np.concatenate(rows), np.repeat(np.arange(len(CLASSES)), per_class)
