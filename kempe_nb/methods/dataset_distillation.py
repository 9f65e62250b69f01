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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from kempe_nb.checks import checked_integer, checked_positive, common_device, keep_checked
from kempe_nb.methods.augmentation import flip_or_rotate, inner_batches
from kempe_nb.methods.coresets import count_classes
from kempe_nb.methods.optimisers import Adam, Optimiser
from kempe_nb.methods.truncation import Truncation
from kempe_nb.methods.unrolled import Loss, MetaGradient, meta_gradient
from kempe_nb.networks.flat import FlatNetwork


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
        keep_checked(self, seed=checked_integer(self.seed, "seed", 0, 2**32 - 1))
        for name in ("decay", "learn_labels", "flip_and_rotate"):
            keep_checked(self, **{name: bool(getattr(self, name))})
        for name in ("outer_lr", "label_lr", "clip"):
            if name != "clip" or self.clip is not None:
                keep_checked(self, **{name: checked_positive(getattr(self, name), name)})
        for name in ("outer_steps", "real_batch", "per_class"):
            value = getattr(self, name)
            if name != "per_class" or value is not None:
                keep_checked(self, **{name: checked_integer(value, name, 1, 2**31 - 1)})


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
        The synthetic images at the start, see `kempe_nb.methods.coresets`.
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


def _checksum(*tensors: torch.Tensor) -> str:
    """Return the SHA-256 of the bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


# What a checkpoint holds.
_IN_A_CHECKPOINT = ("configuration", "step", "mean_norm", "parameters", "moments")
# Seeds of what is drawn in an outer step; `truncation` and `augmentation` have 0 and 3.
_INITIAL, _REAL = 1, 2


def _seed(*parts: int) -> int:
    return int(np.random.default_rng(parts).integers(2**63))


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
