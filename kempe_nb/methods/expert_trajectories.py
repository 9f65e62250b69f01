"""Experts for trajectory matching: networks trained on real data, their parameters kept by epoch.

Cazenavette and others (arXiv 2203.11932) train many networks by plain descent, and keep the
parameters after every epoch, theta*_0 (as initialised), theta*_1, ... A synthetic set is then made
to lead a student from one of them to a later one; see `trajectory_matching`.

Everything that is drawn for an expert comes from the seed, its number and the epoch: its initial
parameters, the order of the images, and what an augmentation draws. So an expert does not depend on
how many are trained, and one that was written to a file is the one that would be trained again.

In half precision snapshots take half the memory. A parameter v is then off by at most 2^-11 |v|, or
2^-25 below 2^-14, and a way between two snapshots by as much at either end. An epoch that moves the
parameters by a hundredth of their size is then off by three percent.

The loss is recorded once and replayed; see `traced`. On one thread of a CPU an epoch of 900 images
of 3 x 32 x 32 in batches of 64 took about 0.24 s so, and 0.34 s without, for a ConvNet of width 16.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    checked_integer,
    checked_positive,
    common_device,
    keep_checked,
)
from kempe_nb.methods.checkpoints import network_configuration, read_same, write_whole
from kempe_nb.methods.coresets import count_classes
from kempe_nb.methods.dataset_distillation import _check_outputs, _checksum, _loss_of, _seed
from kempe_nb.networks.flat import FlatNetwork

FLOATS = torch.float32, torch.float64

#: augment(images, rng) returns images of the same shape; it draws from `rng` alone.
Augment = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]

# Seeds of what is drawn for an expert, beside those of `dataset_distillation`.
_INITIAL, _EPOCH = 4, 5


@dataclass(frozen=True)
class Training:
    """Everything that decides on an expert, besides the network, the data and its number.

    Attributes
    ----------
    epochs : int
    rate : float
        Of plain descent: no momentum, no decay, no schedule.
    batch : int
        Images of a step, at most as many as there are. The last batch of an epoch takes the rest.
    augmentation : str or None
        A name for the function that changes the images of a batch. Name it anew when you change it:
        files of experts are told apart by the name.
    half : bool
        Whether snapshots are kept in float16; see the module.
    seed : int
    """

    epochs: int
    rate: float = 0.01
    batch: int = 256
    augmentation: str | None = None
    half: bool = False
    seed: int = 0

    def __post_init__(self):
        keep_checked(
            self,
            epochs=checked_integer(self.epochs, "epochs", 1, 2**31 - 1),
            rate=checked_positive(self.rate, "rate"),
            batch=checked_integer(self.batch, "batch", 1, 2**31 - 1),
            augmentation=checked_name(self.augmentation),
            half=bool(self.half),
            seed=checked_integer(self.seed, "seed", 0, 2**32 - 1),
        )


@dataclass(frozen=True, eq=False)
class Experts:
    """Trained networks, by epoch.

    Attributes
    ----------
    network : FlatNetwork
    snapshots : float16, float32 or float64 [count, epochs + 1, P]
        Parameters; index 0 of an expert are the initial ones.
    dtype : torch.dtype
        The type of training.
    configuration : mapping
        What makes them other experts, in words and numbers.
    """

    network: FlatNetwork
    snapshots: torch.Tensor
    dtype: torch.dtype
    configuration: Mapping

    def __post_init__(self):
        shape = tuple(self.snapshots.shape)
        if len(shape) != 3 or shape[2] != self.network.size or shape[0] < 1 or shape[1] < 2:
            raise ValueError(
                f"snapshots have shape {shape}; accepted is [count, epochs + 1, "
                f"{self.network.size}], with one expert and one epoch at least"
            )

    @property
    def count(self) -> int:
        """Number of experts."""
        return self.snapshots.shape[0]

    @property
    def epochs(self) -> int:
        """Epochs that they were trained for."""
        return self.snapshots.shape[1] - 1

    @property
    def image(self) -> tuple[int, ...]:
        """Shape of an image that they were trained on."""
        return tuple(self.configuration["real images"][1:])

    def pair(self, expert: int, epoch: int, distance: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return theta*_s and theta*_(s + distance) of an expert, [P] in the type of training.

        Raises
        ------
        ValueError
            For an expert or an epoch that does not exist.
        """
        expert = checked_integer(expert, "expert", 0, self.count - 1)
        distance = checked_integer(distance, "distance", 1, self.epochs)
        epoch = checked_integer(epoch, "epoch", 0, self.epochs - distance)
        before, after = self.snapshots[expert, [epoch, epoch + distance]].to(self.dtype)
        return before, after

    def at(self, epoch: int) -> torch.Tensor:
        """Return the parameters of all experts after an epoch, [count, P], as `pair`."""
        epoch = checked_integer(epoch, "epoch", 0, self.epochs)
        return self.snapshots[:, epoch].to(self.dtype, copy=True)


def train_experts(
    network: FlatNetwork,
    x: torch.Tensor,
    y: torch.Tensor,
    training: Training,
    count: int,
    *,
    augment: Augment | None = None,
    folder: Path | None = None,
) -> Experts:
    """Train experts one after another.

    Parameters
    ----------
    network : FlatNetwork
    x : float32 or float64 [N, ...]
        Real images.
    y : int64 [N]
        Their classes, from 0 on; each class has at least one image.
    training : Training
    count : int
        Of experts.
    augment : callable, optional
        `augment(images, rng)`, whose name is `training.augmentation`.
    folder : path, optional
        An existing one. Experts that lie there are read, and others are written when they are
        finished.

    Raises
    ------
    TypeError
        For a network or a training that is none, or real images in another type.
    ValueError
        For a count below one, images that are not finite, classes without an image, a batch larger
        than the data, a network with another number of outputs, an augmentation without a name or a
        name without an augmentation, two devices, or a file of other experts.
    FileNotFoundError
        For a folder that is not there.
    FloatingPointError
        If an expert diverges, with its number and epoch. Those before it lie in the folder.
    """
    count = checked_integer(count, "count", 1, 2**31 - 1)
    _check(network, x, y, training, augment)
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"folder is {folder}; accepted is a folder that exists")
    configuration = {
        **asdict(training),
        "dtype": str(x.dtype),
        **network_configuration(network),
        "real images": list(x.shape),
        "checksum of the real images and classes": _checksum(x, y),
    }
    kept = torch.float16 if training.half else x.dtype
    snapshots = x.new_empty(count, training.epochs + 1, network.size, dtype=kept)
    files = {}
    if folder is not None:
        files = {n: Path(folder) / f"expert_{n:04d}.pt" for n in range(count)}
    # All files first: one of other experts is refused before any work.
    found = [n for n, file in files.items() if file.exists()]
    for n in found:
        own = configuration | {"number": n}
        snapshots[n] = read_same(files[n], own, ("snapshots",))["snapshots"]
    for n in sorted(set(range(count)) - set(found)):
        _train(network, x, y, training, augment, n, snapshots[n])
        if files:
            own = configuration | {"number": n}
            # A view would be written with the memory of all experts.
            write_whole({"configuration": own, "snapshots": snapshots[n].clone()}, files[n])
    return Experts(network, snapshots, x.dtype, configuration)


def checked_name(name: object) -> str | None:
    """Return the name of an augmentation, or None, or refuse it."""
    if name is not None and not (isinstance(name, str) and name):
        raise ValueError(f"augmentation is {name!r}; accepted is a name, or None")
    return name


def check_augmentation(name: str | None, augment: Augment | None) -> None:
    """Refuse an augmentation without a name, and a name without an augmentation."""
    if (name is None) != (augment is None):
        raise ValueError(
            f"augmentation is {name!r} and augment {augment!r}; accepted are a function and its "
            "name, or neither"
        )


def augmented(augment: Augment, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return what an augmentation makes of images; refuse another shape or type."""
    made = augment(images, rng)
    if made.shape != images.shape or made.dtype != images.dtype:
        raise ValueError(
            f"augment made {made.dtype} {tuple(made.shape)} of {images.dtype} "
            f"{tuple(images.shape)}; accepted are images like those given"
        )
    return made


def _train(network, x, y, training, augment, number: int, snapshots: torch.Tensor) -> None:
    """Train an expert, and write its parameters into `snapshots` [epochs + 1, P]."""
    loss = _loss_of(network)
    seed = _seed(training.seed, number, _INITIAL)
    theta = network.initial(torch.Generator(x.device).manual_seed(seed), dtype=x.dtype)
    snapshots[0] = theta
    for epoch in range(training.epochs):
        rng = np.random.default_rng([training.seed, number, epoch, _EPOCH])
        order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        for chosen in order.split(training.batch):
            images = x[chosen]
            if augment:
                images = augmented(augment, images, rng)
            _, gradient = loss.value_and_gradient(theta, images, y[chosen])
            theta = torch.add(theta, gradient, alpha=-training.rate)
        snapshots[epoch + 1] = theta
        _refuse_divergence(theta, snapshots[epoch + 1], f"expert {number} after epoch {epoch + 1}")


def _refuse_divergence(theta: torch.Tensor, kept: torch.Tensor, whose: str) -> None:
    if not theta.isfinite().all():
        raise FloatingPointError(
            f"the parameters of {whose} are not finite: it diverges; take a smaller rate"
        )
    if not kept.isfinite().all():
        raise FloatingPointError(
            f"a parameter of {whose} is {float(theta.abs().max()):g}, beyond float16; take "
            "half=False"
        )


def _check(network, x, y, training, augment) -> None:
    if not isinstance(network, FlatNetwork):
        raise TypeError(f"network is a {type(network).__name__}; accepted is a FlatNetwork")
    if not isinstance(training, Training):
        raise TypeError(f"training is a {type(training).__name__}; accepted is a Training")
    common_device(x=x, y=y)
    check_dtype(x, "x", FLOATS)
    classes = count_classes(x, y)
    check_finite(x, "x")
    if training.batch > len(x):
        raise ValueError(
            f"batch is {training.batch} and x has {len(x)} images; accepted is at most as many"
        )
    check_augmentation(training.augmentation, augment)
    _check_outputs(network, x, classes)
