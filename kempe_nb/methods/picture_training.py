"""Training a small classifier of pictures that have no preferred direction."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from kempe_nb.checks import checked_integer, checked_positive
from kempe_nb.methods.coresets import count_classes
from kempe_nb.methods.unrolled import Loss
from kempe_nb.networks.convnet import convnet
from kempe_nb.networks.flat import FlatNetwork

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


class Classifier:
    """A small ConvNet as a function of one vector, with its loss recorded once.

    Parameters
    ----------
    image : sequence of int
        Channels, height and width.
    classes : int
    width, depth : int
        Of `networks.convnet`.
    """

    def __init__(self, image, classes: int, *, width: int = 16, depth: int = 3):
        self.network = FlatNetwork(convnet(tuple(image), classes, width=width, depth=depth))
        self.loss = Loss(lambda theta, x, y: F.cross_entropy(self.network(theta, x), y), trace=True)

    @torch.no_grad()
    def probabilities(self, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of the classes, [N, classes]."""
        logits = [self.network(theta, part) for part in images.split(512)]
        return torch.cat(logits).softmax(1)

    def accuracy(self, theta: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Return the share of pictures that are read rightly."""
        return float((self.probabilities(theta, images).argmax(1) == labels).double().mean())

    def train(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        rng: np.random.Generator,
        *,
        steps: int,
        rate: float,
        batch: int = 64,
    ) -> torch.Tensor:
        """Return the parameters of a new network after training, [P].

        SGD with momentum .9 and weight decay 5e-4; the rate falls along half a cosine. A batch is
        drawn without repetition, and takes all pictures where there are no more. Each of its
        pictures is turned by a random number of quarters, and mirrored or not.

        Raises
        ------
        ValueError
            For labels that do not fit the pictures, pictures that are not square, or a rate, steps
            or batch that are not positive.
        FloatingPointError
            For a training that diverged.
        """
        count_classes(images, labels)
        steps, batch = checked_integer(steps, "steps", 1), checked_integer(batch, "batch", 1)
        rate = checked_positive(rate, "rate")
        start = torch.Generator(images.device).manual_seed(int(rng.integers(2**63)))
        theta = self.network.initial(start, dtype=images.dtype)
        velocity = torch.zeros_like(theta)
        for step in range(steps):
            rows = torch.from_numpy(rng.permutation(len(images))[:batch]).to(images.device)
            shown = turned_at_random(images[rows], rng)
            _, gradient = self.loss.value_and_gradient(theta, shown, labels[rows])
            velocity = MOMENTUM * velocity + gradient + WEIGHT_DECAY * theta
            theta = theta - rate * (1 + math.cos(math.pi * step / steps)) / 2 * velocity
        if not theta.isfinite().all():
            raise FloatingPointError(f"a training with rate {rate:g} diverged in {steps} steps")
        return theta


def taught(
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    parts: Sequence[tuple[torch.Tensor, torch.Tensor]],
    rng: np.random.Generator,
    *,
    rates: Sequence[float] = (0.003, 0.01, 0.03, 0.1),
    steps: int = 100,
    networks: int = 3,
) -> np.ndarray:
    """Return how well new networks that learn from few pictures read others, float64 [parts].

    Every rate is tried with as many new networks, each step on all pictures. The rate with the best
    mean accuracy on the first part is taken, and its mean accuracy on each part returned. So the
    first part is for choosing; what is chosen is judged by the others.

    Parameters
    ----------
    images : [n, C, H, H]
    labels : int64 [n]
    parts : sequence of (images, labels)
        Pictures to be read.
    rng : numpy.random.Generator
    rates : sequence of float
    steps, networks : int

    Raises
    ------
    ValueError
        Without parts or rates, for networks that are not positive, and as `Classifier.train`.
    FloatingPointError
        For a training that diverged.
    """
    networks = checked_integer(networks, "networks", 1)
    for name, given in (("parts", parts), ("rates", rates)):
        if not len(given):
            raise ValueError(f"{name} is empty; accepted is at least one")
    found = np.empty((len(rates), networks, len(parts)))
    for r, n in np.ndindex(found.shape[:2]):
        theta = classifier.train(images, labels, rng, steps=steps, rate=rates[r], batch=len(images))
        found[r, n] = [classifier.accuracy(theta, *part) for part in parts]
    means = found.mean(1)
    return means[means[:, 0].argmax()]


def turned_at_random(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return each picture turned by a random number of quarters, and mirrored or not.

    Parameters
    ----------
    images : [N, C, H, H]
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images have shape {tuple(images.shape)}; accepted is [N, C, H, H]")
    quarters, mirrored = rng.integers(4, size=len(images)), rng.integers(2, size=len(images))
    turned = torch.empty_like(images)
    for quarter in range(4):
        for mirror in range(2):
            rows = np.flatnonzero((quarters == quarter) & (mirrored == mirror))
            if len(rows):
                rows = torch.from_numpy(rows).to(images.device)
                found = torch.rot90(images[rows], quarter, (2, 3))
                turned[rows] = found.flip(3) if mirror else found
    return turned
