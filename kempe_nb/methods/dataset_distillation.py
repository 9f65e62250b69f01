"""Data set distillation by meta-gradients, RaT-BPTT and its relatives, and boosting.

Feng, Vedantam and Kempe, "Embarrassingly Simple Dataset Distillation" (arXiv 2311.07025), in the
form of their released code. An outer step draws fresh parameters, trains them on the synthetic
images for N inner steps, takes the loss on a batch of real ones, and moves the images along the
meta-gradient through the last K steps, by Adam. A `Truncation` says how N and K are drawn.

Everything that is drawn in an outer step comes from the seed and the number of the step. So a run
that was interrupted goes on with the same bits, from a file with images, moments and counters.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from kempe_nb.checks import checked_integer, checked_positive, common_device
from kempe_nb.methods.unrolled import (
    Adam,
    Loss,
    MetaGradient,
    Optimiser,
    advance,
    checked_window,
    meta_gradient,
    start,
)
from kempe_nb.networks.flat import FlatNetwork

#: Where a window lies in the unroll.
PLACEMENTS = ("full", "last", "random length", "random", "fixed", "moving")


@dataclass(frozen=True)
class Truncation:
    """How many inner steps N an outer step takes, and how many of them K it goes back through.

    Attributes
    ----------
    unroll : int
        T, the largest N.
    window : int
        M, at most T.
    placement : str
        "full": N = K = T (BPTT). "last": N = T, K = M (truncated). "random length": N = K uniform
        in M..T (random BPTT). "random": N uniform in M..T, K = M (RaT-BPTT). "fixed": N = first +
        M, K = M. "moving": K = M and N grows from M to T, each value for as many outer steps (a
        curriculum; with fewer outer steps than values, some are left out).
    hold : int
        Outer steps for which a draw is kept. The released code draws once in an epoch.
    first : int
        The first step of a fixed window.
    """

    unroll: int
    window: int
    placement: str = "random"
    hold: int = 1
    first: int = 0

    def __post_init__(self):
        unroll, window = checked_window(self.unroll, self.window)
        if self.placement not in PLACEMENTS:
            accepted = ", ".join(map(repr, PLACEMENTS))
            raise ValueError(f"placement is {self.placement!r}; accepted are {accepted}")
        _set(
            self,
            unroll=unroll,
            window=window,
            hold=checked_integer(self.hold, "hold", 1, 2**31 - 1),
            first=checked_integer(self.first, "first", 0, unroll - window),
        )

    def draw(self, seed: int, outer_step: int, outer_steps: int) -> tuple[int, int]:
        """Return N and K of an outer step, counted from 0; the same for the same arguments."""
        unroll, window = self.unroll, self.window
        rng = np.random.default_rng([seed, outer_step // self.hold, _WINDOW])
        drawn = int(rng.integers(window, unroll + 1))
        moved = window + (unroll - window + 1) * min(outer_step, outer_steps - 1) // outer_steps
        return {
            "full": (unroll, unroll),
            "last": (unroll, window),
            "random length": (drawn, drawn),
            "random": (drawn, window),
            "fixed": (self.first + window, window),
            "moving": (moved, window),
        }[self.placement]

    def coverage(self) -> np.ndarray:
        """Return the probability that an inner step is gone back through, float64 [T].

        For a random window it is a trapezoid: M / (T - M + 1) in the middle, where T >= 2 M - 1,
        and 1 / (T - M + 1) at both ends.
        """
        ends = np.arange(self.window, self.unroll + 1)
        if self.placement not in ("random", "random length", "moving"):
            end, _ = self.draw(0, 0, 1)
            ends = np.array([end])
        whole = self.placement in ("full", "random length")
        begins = ends * 0 if whole else ends - self.window
        steps = np.arange(self.unroll)[:, None]
        return ((begins <= steps) & (steps < ends)).mean(1)


@dataclass(frozen=True)
class Settings:
    """Everything that decides on a run, besides the network and the data.

    Attributes
    ----------
    truncation : Truncation
    inner : Optimiser
        Of the networks.
    outer_lr : float
        Of the images; labels that are learned take `label_lr`.
    outer_steps : int
        With `decay`, the rate falls to zero over them along half a cosine.
    real_batch : int
        Real images of an outer step.
    clip : float or None
        The meta-gradient is cut to this many times the running mean of its norm, which decays by
        0.9 a step and takes in the new norm first, as in the released code. None cuts nothing.
    learn_labels : bool
        Labels then start one-hot, may grow to any size, and stay non-negative.
    per_class : int or None
        Synthetic images of each class in an inner step, drawn anew; None takes all of them.
    flip_and_rotate : bool
        Whether each batch, real or synthetic, is either mirrored (each image with probability 1/2)
        or rotated (each by an angle uniform in +- 15 degrees).
    seed : int
    """

    truncation: Truncation
    inner: Optimiser = field(default_factory=lambda: Adam(1e-3))
    outer_lr: float = 1e-3
    outer_steps: int = 1000
    real_batch: int = 512
    clip: float | None = 2.0
    decay: bool = False
    learn_labels: bool = False
    label_lr: float = 1e-3
    per_class: int | None = None
    flip_and_rotate: bool = False
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.truncation, Truncation):
            kind = type(self.truncation).__name__
            raise TypeError(f"truncation is a {kind}; accepted is a Truncation")
        _set(self, seed=checked_integer(self.seed, "seed", 0, 2**32 - 1))
        for name in ("decay", "learn_labels", "flip_and_rotate"):
            _set(self, **{name: bool(getattr(self, name))})
        for name in ("outer_lr", "label_lr", "clip"):
            if name != "clip" or self.clip is not None:
                _set(self, **{name: checked_positive(getattr(self, name), name)})
        for name in ("outer_steps", "real_batch", "per_class"):
            if name != "per_class" or self.per_class is not None:
                _set(self, **{name: checked_integer(getattr(self, name), name, 1, 2**31 - 1)})


def _set(frozen: Truncation | Settings, **values) -> None:
    """Keep checked values, which are Python's own numbers: a checkpoint holds no others."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


class Record(NamedTuple):
    """What an outer step did: its number, real loss, norm of the meta-gradient, factor, N and K."""

    step: int
    loss: float
    norm: float
    clipped: float
    unroll: int
    window: int


class Distillation:
    """A synthetic set that is being distilled.

    Parameters
    ----------
    network : FlatNetwork
    x : float32 or float64 [N, ...]
        Real images.
    y : int64 [N]
        Their classes, from 0 on; each class has at least one image.
    images : like x, [n, ...]
        The synthetic images at the start, see `noise` and `real_images`.
    classes : int64 [n]
        Their classes.
    settings : Settings
    rates : float [n], optional
        What the rate of each image is multiplied with: 1, or for images of earlier stages the beta
        of boosting. Images with the rate zero keep their bits.

    Raises
    ------
    ValueError
        For real images that are not floating-point numbers, classes without a real image, a class
        of synthetic images that does not exist, more images of a class in an inner step than there
        are, a network with another number of outputs, shapes that do not fit, or two devices.
    """

    def __init__(
        self,
        network: FlatNetwork,
        x: torch.Tensor,
        y: torch.Tensor,
        images: torch.Tensor,
        classes: torch.Tensor,
        settings: Settings,
        rates: torch.Tensor | None = None,
    ):
        self.network, self.x, self.y, self.settings = network, x, y, settings
        common_device(x=x, y=y, images=images, classes=classes)
        self.count = count_classes(x, y)
        _check_synthetic(images, classes, x, self.count, settings.per_class)
        _check_outputs(network, x, self.count)
        self.classes = classes.clone()
        self.rates = torch.ones(len(images)) if rates is None else _checked_rates(rates, images)
        self.rates = self.rates.to(images).view(-1, *[1] * (images.ndim - 1))
        labels = F.one_hot(classes, self.count).to(images.dtype)
        self.parameters = [images.detach().clone()]
        if settings.learn_labels:
            self.parameters.append(labels.clone())
        self._labels = labels
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self.step, self.mean_norm = 0, 0.0
        self.loss = _loss_of(network)
        self._start = _checksum(images)

    @property
    def images(self) -> torch.Tensor:
        """The synthetic images, [n, ...]."""
        return self.parameters[0]

    @property
    def labels(self) -> torch.Tensor:
        """Their labels, [n, classes]: one-hot, or learned ones of any non-negative size."""
        return self.parameters[1] if self.settings.learn_labels else self._labels

    def advance(self, steps: int = 1) -> Iterator[Record]:
        """Take outer steps, at most up to `settings.outer_steps`; yield what each of them did.

        Raises
        ------
        FloatingPointError
            If a meta-gradient is not finite. The images stay those of the step before.
        """
        for _ in range(steps):
            if self._done:
                return
            yield self._outer_step()

    def meta_gradient(
        self, step: int | None = None, unroll: int | None = None, window: int | None = None
    ) -> MetaGradient:
        """Return the meta-gradient that outer step `step` would take, without taking it.

        N and K are those of the step, or the given ones; initial parameters and the real batch
        belong to the step in any case.
        """
        settings, step = self.settings, self.step if step is None else step
        if (unroll is None) != (window is None):
            raise ValueError(
                f"unroll is {unroll} and window {window}; accepted are both of them, or none"
            )
        if unroll is None:
            unroll, window = settings.truncation.draw(settings.seed, step, settings.outer_steps)
        generator = torch.Generator(self.x.device).manual_seed(_seed(settings.seed, step, _INITIAL))
        theta = self.network.initial(generator, dtype=self.x.dtype)
        rng = np.random.default_rng([settings.seed, step, _REAL])
        chosen = torch.from_numpy(rng.integers(len(self.x), size=settings.real_batch))
        chosen = chosen.to(self.x.device)
        x = self.x[chosen]
        if settings.flip_and_rotate:
            x = flip_or_rotate(x, rng)
        return meta_gradient(
            *(self.loss, self.loss.on(x, self.y[chosen]), (self.images, self.labels), theta),
            *(settings.inner, unroll, window),
            batch=self._batch(step),
        )

    def save(self, path: Path) -> None:
        """Write everything that a run needs to go on; the file is whole or not there."""
        path = Path(path)
        state = {
            "configuration": self._configuration(),
            "step": self.step,
            "mean_norm": self.mean_norm,
            "parameters": self.parameters,
            "moments": [list(pair) for pair in self.moments],
        }
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            torch.save(state, part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def resume(self, path: Path) -> None:
        """Go on where a saved run stopped.

        Raises
        ------
        ValueError
            If the file is no checkpoint, or belongs to another configuration; the first difference
            is named. Nothing has changed then.
        """
        state = torch.load(Path(path), map_location=self.x.device, weights_only=True)
        if not isinstance(state, dict) or state.keys() != set(_IN_A_CHECKPOINT):
            raise ValueError(
                f"{path} holds something else; accepted is a checkpoint, with "
                f"{', '.join(_IN_A_CHECKPOINT)}"
            )
        own, other = self._configuration(), state["configuration"]
        for name in own | other:
            if own.get(name) != other.get(name):
                raise ValueError(
                    f"{path} is a run with {name} = {other.get(name)!r}; this one has "
                    f"{own.get(name)!r}. Accepted is a checkpoint of the same configuration: take "
                    "another path, or the settings of that run"
                )
        self.step, self.mean_norm = state["step"], state["mean_norm"]
        self.parameters = state["parameters"]
        self.moments = [tuple(pair) for pair in state["moments"]]

    def run(
        self, path: Path | None = None, *, every: int = 100, on_step: Callable | None = None
    ) -> None:
        """Take all outer steps that are left, from the checkpoint at `path` if there is one.

        Parameters
        ----------
        path : path, optional
            Of the checkpoint, written every `every` steps and at the end.
        on_step : callable, optional
            Called with the record of each step.
        """
        every = checked_integer(every, "every", 1, 2**31 - 1)
        saved = "none"
        if path is not None and not Path(path).parent.is_dir():
            raise FileNotFoundError(f"path is {path}; accepted is a file in a folder that exists")
        if path is not None and Path(path).exists():
            self.resume(path)
            saved = f"step {self.step} in {path}"
        while self.step < self.settings.outer_steps:
            try:
                record = self._outer_step()
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}; the last checkpoint is {saved}") from None
            if on_step:
                on_step(record)
            if path is not None and (self.step % every == 0 or self._done):
                self.save(path)
                saved = f"step {self.step} in {path}"

    @property
    def _done(self) -> bool:
        return self.step >= self.settings.outer_steps

    def _outer_step(self) -> Record:
        settings, step = self.settings, self.step
        unroll, window = settings.truncation.draw(settings.seed, step, settings.outer_steps)
        made = self.meta_gradient(step)
        gradients = made.gradients[: len(self.parameters)]
        norm = float(gradients[0].norm())
        if not all(each.isfinite().all() for each in (*gradients, made.outer_loss)):
            raise FloatingPointError(
                f"the meta-gradient of outer step {step} (N = {unroll}, K = {window}) is not "
                f"finite; the images are those after {step} steps"
            )
        mean_norm = 0.9 * self.mean_norm + 0.1 * norm if step else norm
        factor = 1.0
        if settings.clip is not None and norm > settings.clip * mean_norm:
            factor = settings.clip * mean_norm / norm
        # Labels are not clipped.
        moved = [self._moved(0, gradients[0] * factor, settings.outer_lr, self.rates)]
        if settings.learn_labels:
            moved.append(self._moved(1, gradients[1], settings.label_lr, self.rates.view(-1, 1)))
            moved[1][0].clamp_(min=0)
        # Whoever interrupts finds the step done, or not begun.
        self.parameters, self.moments, self.mean_norm, self.step = (
            *map(list, zip(*moved, strict=True)),
            mean_norm,
            step + 1,
        )
        return Record(step, float(made.outer_loss), norm, factor, unroll, window)

    def _moved(self, index: int, gradient, rate: float, rates: torch.Tensor):
        """Return a parameter after a step of Adam, and its moments."""
        if self.settings.decay:
            rate *= (1 + np.cos(np.pi * self.step / self.settings.outer_steps)) / 2
        before = self.parameters[index]
        moved, moments = Adam(1.0).step(
            torch.zeros_like(gradient), self.moments[index], gradient, self.step + 1
        )
        return torch.where(rates > 0, before + rate * rates * moved, before), moments

    def _batch(self, outer_step: int):
        """Return the function that chooses and augments the data of an inner step, if any."""
        settings = self.settings
        if settings.per_class is None and not settings.flip_and_rotate:
            return None
        return inner_batches(
            self.classes,
            per_class=settings.per_class,
            flip_and_rotate=settings.flip_and_rotate,
            seed=[settings.seed, outer_step],
        )

    def _configuration(self) -> dict:
        """Return what must be the same for a run to go on, in words and numbers."""
        settings = asdict(self.settings)
        settings["inner"] = repr(self.settings.inner)
        truncation = settings.pop("truncation")
        return {
            **settings,
            **{f"truncation.{name}": value for name, value in truncation.items()},
            "parameters of the network": self.network.size,
            "network": repr(self.network.module),
            "checksum of the network's buffers": _checksum(*self.network.module.buffers()),
            "real images": list(self.x.shape),
            "checksum of the real images and classes": _checksum(self.x, self.y),
            "synthetic images": list(self.images.shape),
            "checksum of the synthetic images at the start": self._start,
            "classes": self.classes.tolist(),
            "rates": self.rates.flatten().tolist(),
        }


# Recording a loss takes as long as many outer steps: each network's is recorded once.
@lru_cache(maxsize=32)
def _loss_of(network: FlatNetwork) -> Loss:
    """Return the cross-entropy of one network."""
    return Loss(lambda theta, x, y: F.cross_entropy(network(theta, x), y), trace=True)


@lru_cache(maxsize=32)
def _loss_of_many(network: FlatNetwork, own: bool) -> Loss:
    """Return the sum of the cross-entropies of many, on one set or on a set for each."""
    each = torch.func.vmap(
        lambda theta, x, y: F.cross_entropy(network(theta, x), y),
        in_dims=(0, 0, 0) if own else (0, None, None),
    )
    return Loss(lambda thetas, x, y: each(thetas, x, y).sum(), trace=True)


def _checksum(*tensors: torch.Tensor) -> str:
    """Return the SHA-256 of the bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


# What a checkpoint holds.
_IN_A_CHECKPOINT = ("configuration", "step", "mean_norm", "parameters", "moments")
# Seeds of what is drawn in an outer step.
_WINDOW, _INITIAL, _REAL, _INNER = range(4)


def _seed(*parts: int) -> int:
    return int(np.random.default_rng(parts).integers(2**63))


def inner_batches(
    classes: torch.Tensor,
    *,
    per_class: int | None = None,
    flip_and_rotate: bool = False,
    seed: Sequence[int] = (0,),
):
    """Return `batch(synthetic, step)`: images of each class, drawn anew in each step, augmented.

    For one set, images [n, ...], not for many at once.
    """
    places = [torch.nonzero(classes == c).flatten() for c in classes.unique()]

    def batch(synthetic, step):
        images, labels = synthetic
        rng = np.random.default_rng([*seed, step, _INNER])
        if per_class is not None:
            drawn = [own[rng.permutation(len(own))[:per_class]] for own in places]
            chosen = torch.cat(drawn)
            images, labels = images[chosen], labels[chosen]
        if flip_and_rotate:
            images = flip_or_rotate(images, rng)
        return images, labels

    return batch


def flip_or_rotate(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return images [N, C, H, W], mirrored or rotated, all in the same one of the two ways.

    Either each image is mirrored with probability 1/2, or each is rotated by an angle uniform in
    +- 15 degrees (bilinear, zero outside); a draw decides which. Differentiable in the images.
    """
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; accepted is [N, C, H, W]")
    count, place = len(images), {"dtype": images.dtype, "device": images.device}
    if rng.random() < 0.5:
        mirrored = torch.as_tensor(rng.random(count) < 0.5, device=images.device)
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    angles = torch.as_tensor(np.deg2rad(rng.uniform(-15, 15, count)), **place)
    zero, cos, sin = torch.zeros_like(angles), angles.cos(), angles.sin()
    # The grid reaches from -1 to 1 in both directions, whatever the sides.
    aspect = images.shape[2] / images.shape[3]
    entries = [cos, -sin * aspect, zero, sin / aspect, cos, zero]
    matrices = torch.stack(entries, 1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


class ZCA:
    """The whitening of the paper's code, fitted to images [N, C, H, W].

    Each image loses its own mean and is divided by its own norm. With X the images as rows and
    S = X^T X / N = V diag(e) V^T it is then multiplied by V diag(e + 0.1 mean(e))^(-1/2) V^T. So
    directions that vary little stay damped: their variance is e / (e + 0.1 mean(e)).

    Attributes
    ----------
    matrix, inverse : torch.Tensor [D, D]
        D = C H W. The inverse is for looking at whitened images.
    """

    def __init__(self, images: torch.Tensor, share: float = 0.1):
        flat = self._normalised(images)
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        scale = values.clamp(min=0) + share * values.clamp(min=0).mean()
        self.matrix = (vectors * scale.rsqrt()) @ vectors.T
        self.inverse = (vectors * scale.sqrt()) @ vectors.T

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return whitened images of the same shape."""
        return (self._normalised(images) @ self.matrix).view(images.shape)

    def visible(self, images: torch.Tensor) -> torch.Tensor:
        """Return what whitened images look like, up to the mean and the norm of each."""
        return (images.flatten(1) @ self.inverse).view(images.shape)

    @staticmethod
    def _normalised(images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)


# Synthetic sets at the start, and sets to compare with


def count_classes(x: torch.Tensor, y: torch.Tensor) -> int:
    """Return the number of classes; refuse labels that leave one out, or do not fit the images."""
    if y.dtype != torch.int64 or y.ndim != 1 or len(y) != len(x) or not len(y):
        raise ValueError(
            f"y is {y.dtype} {tuple(y.shape)} and x has {len(x)} images; accepted is int64 with "
            "one class for each image, and at least one image"
        )
    present = y.unique().tolist()
    missing = sorted(set(range(max(present) + 1)) - set(present))
    if missing or present[0] < 0:
        lacking = f" and no image of {missing}" if missing else ""
        raise ValueError(
            f"y has classes {present[0]} to {present[-1]}{lacking}; accepted are classes from 0 on "
            "with at least one image each"
        )
    return len(present)


def noise(
    image: Sequence[int], classes: int, per_class: int, generator: torch.Generator, **kind
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normal images, each divided by its norm as in the released code, and classes."""
    per_class = checked_integer(per_class, "per_class", 1, 2**31 - 1)
    shape = classes * per_class, *image
    images = torch.randn(shape, generator=generator, device=generator.device, **kind)
    norms = images.flatten(1).norm(dim=1).view(-1, *[1] * len(image))
    own = torch.arange(classes, device=generator.device).repeat_interleave(per_class)
    return images / norms, own


def real_images(
    x: torch.Tensor, y: torch.Tensor, per_class: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `per_class` real images of each class without repetition, and their classes."""
    return _of_each_class(x, y, per_class, lambda own: own[rng.permutation(len(own))[:per_class]])


def k_means(
    x: torch.Tensor, y: torch.Tensor, per_class: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centres of k-means in each class; for one image a class, the class means."""
    from sklearn.cluster import KMeans

    def centres(own):
        fitted = KMeans(per_class, n_init=4, random_state=int(rng.integers(2**31)))
        found = fitted.fit(own.flatten(1).double().cpu().numpy()).cluster_centers_
        return torch.from_numpy(found).to(own).view(-1, *own.shape[1:])

    return _of_each_class(x, y, per_class, centres)


def herding(x: torch.Tensor, y: torch.Tensor, per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of each class whose mean follows that of the class, one after another.

    Herding (Welling 2009) in pixels: the next image is the one that brings the mean of the chosen
    ones closest to the mean of the class.
    """

    def chosen(own):
        flat = own.flatten(1)
        mean, total, left = flat.mean(0), torch.zeros_like(flat[0]), list(range(len(flat)))
        picked = []
        for size in range(1, per_class + 1):
            gaps = ((total + flat[left]) / size - mean).square().sum(1)
            picked.append(left.pop(int(gaps.argmin())))
            total = total + flat[picked[-1]]
        return own[picked]

    return _of_each_class(x, y, per_class, chosen)


def _of_each_class(x, y, per_class, choose):
    """Return what `choose` makes of the images of each class, and the classes."""
    per_class = checked_integer(per_class, "per_class", 1, 2**31 - 1)
    classes = count_classes(x, y)
    sizes = torch.bincount(y, minlength=classes)
    if per_class > int(sizes.min()):
        smallest = int(sizes.argmin())
        raise ValueError(
            f"per_class is {per_class}, and class {smallest} has {int(sizes.min())} images; "
            "accepted is at most the size of the smallest class"
        )
    images = torch.cat([choose(x[y == c]) for c in range(classes)])
    return images, torch.arange(classes, device=x.device).repeat_interleave(per_class)


def _check_outputs(network: FlatNetwork, x: torch.Tensor, count: int) -> None:
    with torch.no_grad():
        found = network(torch.zeros(network.size).to(x), x[:1]).shape
    if found != (1, count):
        raise ValueError(
            f"network makes {tuple(found)} of one image and y has {count} classes; accepted is "
            f"(1, {count})"
        )


def _check_synthetic(images, classes, x, count: int, per_class: int | None) -> None:
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}; accepted are floating-point images")
    if images.shape[1:] != x.shape[1:] or images.dtype != x.dtype:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)} and x {x.dtype} {tuple(x.shape)}; "
            "accepted are images like the real ones"
        )
    if classes.shape != (len(images),) or classes.dtype != torch.int64:
        raise ValueError(
            f"classes are {classes.dtype} {tuple(classes.shape)}; accepted is int64 "
            f"[{len(images)}], one for each synthetic image"
        )
    if not len(images) or classes.min() < 0 or classes.max() >= count:
        raise ValueError(
            f"classes of the synthetic images are {sorted(set(classes.tolist()))}; accepted are "
            f"at least one image, and classes from 0 to {count - 1}"
        )
    smallest = int(torch.bincount(classes)[classes.unique()].min())
    if per_class is not None and per_class > smallest:
        raise ValueError(
            f"per_class is {per_class}, and a class has {smallest} synthetic images; accepted is "
            "at most as many"
        )


def _checked_rates(rates: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    rates = torch.as_tensor(rates).to(images)
    if rates.shape != (len(images),) or not ((rates >= 0) & rates.isfinite()).all():
        raise ValueError(
            f"rates are {rates.tolist()}; accepted is a number from 0 on for each of the "
            f"{len(images)} images"
        )
    return rates


# Evaluation


def train(
    network: FlatNetwork,
    images: torch.Tensor,
    labels: torch.Tensor,
    thetas: torch.Tensor,
    optimiser: Optimiser,
    checkpoints: Sequence[int],
    *,
    batch: Callable | None = None,
) -> list[torch.Tensor]:
    """Train many networks at once, and return their parameters after some numbers of steps.

    Parameters
    ----------
    images : [n, ...], or [V, n, ...] for a set of its own for each network
    labels : float [n, classes] or [V, n, classes]
        Targets of the cross-entropy, one-hot or learned.
    thetas : [V, P]
        Where the networks start.
    checkpoints : sequence of int
        Numbers of steps, increasing.
    batch : callable, optional
        `batch((images, labels), step)`; see `inner_batches`. For one set, not for many.

    Returns
    -------
    list of torch.Tensor
        Parameters [V, P] at each checkpoint.
    """
    own = labels.ndim == 3
    if own and len(images) != len(thetas):
        raise ValueError(
            f"images hold {len(images)} sets and thetas {len(thetas)} networks; accepted is one "
            "set for each network, or one for all"
        )
    if own and batch is not None:
        raise ValueError("batch is given for a set for each network; accepted is one set for all")
    if list(checkpoints) != sorted(set(checkpoints)) or min(checkpoints, default=0) < 1:
        raise ValueError(f"checkpoints are {checkpoints}; accepted are increasing steps from 1 on")
    loss = _loss_of_many(network, own)
    state, found = start(thetas, optimiser), []
    for stop in checkpoints:
        state = advance(loss, (images, labels), state, optimiser, stop - state.step, batch=batch)
        found.append(state.theta)
    return found


@torch.no_grad()
def accuracies(
    network: FlatNetwork, thetas: torch.Tensor, x: torch.Tensor, y: torch.Tensor, chunk: int = 500
) -> torch.Tensor:
    """Return the share of right answers of each network, float64 [V]."""
    if not len(y) or len(x) != len(y):
        raise ValueError(f"x has {len(x)} images and y {len(y)} classes; accepted is one for each")
    right = torch.zeros(len(thetas), dtype=torch.float64)
    logits = torch.func.vmap(network, in_dims=(0, None))
    for images, classes in zip(x.split(chunk), y.split(chunk), strict=True):
        right += (logits(thetas, images).argmax(2) == classes).double().sum(1).cpu()
    return right / len(y)
