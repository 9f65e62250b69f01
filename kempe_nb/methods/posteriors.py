"""Laws over the parameters of a network: given networks, a Gaussian, MC dropout.

A Bayesian network answers with many networks at once. Whatever their law, it is here a law over the
one parameter vector theta [P] of a `FlatNetwork`, and it offers the same three things:

    law.draw(samples, generator)         parameter vectors  [S, P]
    law.logits(x, samples, generator)    what fresh networks say  [S, N, K]
    law.fixed(samples, generator)        networks drawn once and kept, as `Samples`

An attack on `fixed` networks knows the very networks that will answer; an attack that calls
`logits` with a generator meets others in each step, and so does the defender. Keep the two apart.

All draws come from the generator that is given, and leave the global one of PyTorch alone. Logits
are differentiable with respect to the images and to the tensors of the law.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    checked_fraction,
    checked_integer,
    common_device,
    keep_checked,
)
from kempe_nb.networks.flat import FlatNetwork

FLOATS = (torch.float32, torch.float64)


class Posterior:
    """What all laws over the parameters of a network share."""

    network: FlatNetwork

    def draw(self, samples: int, generator: torch.Generator) -> torch.Tensor:
        """Return independent parameter vectors [S, P], differentiable in the law's tensors.

        Raises
        ------
        TypeError
            Without a generator.
        ValueError
            For fewer than one sample, or a generator on another device than the law.
        """
        raise NotImplementedError

    def logits(
        self,
        x: torch.Tensor,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Return the logits of freshly drawn networks, [S, N, K].

        Parameters
        ----------
        x : [N, ...]
            Images of the dtype of the parameters.
        samples : int
            S; may be left out for given networks alone, where it means all of them.
        generator : torch.Generator
            Of the draws.

        Raises
        ------
        TypeError
            For images of another dtype, or without a generator.
        ValueError
            As `draw`, and for images on another device.
        """
        return logits(self.network, self.draw(samples, generator), x)

    def fixed(self, samples: int, generator: torch.Generator) -> "Samples":
        """Return networks drawn once and kept, without a graph to the tensors of the law."""
        return Samples(self.network, self.draw(samples, generator).detach())


@dataclass(frozen=True, eq=False)
class Samples(Posterior):
    """Given networks: states of a Markov chain, a deep ensemble, or one network alone.

    Its draws are WITHOUT replacement, a uniformly random subset in the order of the given ones.
    Drawing nine states a hundred times gives nine networks, not a hundred, so more than there are
    is refused.

    Attributes
    ----------
    network : FlatNetwork
    theta : float32 or float64 [S, P]
        Finite, S at least 1; chains are laid one after the other.
    """

    network: FlatNetwork
    theta: torch.Tensor

    def __post_init__(self):
        _check_vectors(self.network, theta=self.theta, ndim=2)

    def draw(
        self, samples: int | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return `samples` of the networks, all different, or all of them, [S, P].

        The generator is needed with `samples` only.

        Raises
        ------
        ValueError
            For more samples than there are networks.
        """
        if samples is None:
            return self.theta
        there = len(self.theta)
        checked_integer(samples, "samples", 1)
        if samples > there:
            raise ValueError(
                f"samples is {samples}; accepted is 1 to {there}, the networks there are: they are "
                "drawn without replacement, as copies of a network tell nothing new"
            )
        device = checked_generator(generator, self.theta).device
        chosen = torch.randperm(there, generator=generator, device=device)[:samples]
        return self.theta[chosen.sort().values]


@dataclass(frozen=True, eq=False)
class Gaussian(Posterior):
    """A normal law with independent coordinates, as mean-field inference finds it.

    Attributes
    ----------
    network : FlatNetwork
    mean : float32 or float64 [P]
    scale : [P]
        Standard deviations, of the same dtype; 0 for coordinates that are not random.
    """

    network: FlatNetwork
    mean: torch.Tensor
    scale: torch.Tensor

    def __post_init__(self):
        _check_vectors(self.network, mean=self.mean, scale=self.scale, ndim=1)
        if (self.scale < 0).any():
            low = self.scale.detach().amin().item()
            raise ValueError(f"scale holds {low:g}; accepted are standard deviations from 0 on")

    def draw(self, samples: int, generator: torch.Generator) -> torch.Tensor:
        """Return mean + scale * noise, [S, P]; see `Posterior.draw`."""
        checked_integer(samples, "samples", 1)
        return self.mean + self.scale * standard_normal(samples, self.mean, generator)


@dataclass(frozen=True, eq=False)
class Dropout(Posterior):
    """MC dropout as a law over parameters (Gal and Ghahramani, arXiv 1506.02142).

    To drop a hidden unit is to zero its outgoing weights, and to scale what is kept by
    1 / (1 - rate) is to scale these. So a mask is a parameter vector, and a fixed mask is a fixed
    network, the same for all images. Every input of a linear layer is dropped by itself, as
    `nn.Dropout` before it does, every input channel of a 2-d convolution as a whole, as
    `nn.Dropout2d` does. The first layer with weights sees the images, and drops nothing; it may be
    any module, such as a whole network of features. Biases stay as they are.

    Attributes
    ----------
    network : FlatNetwork
        Of an `nn.Sequential`, nested or not: after the first layer with weights of `nn.Linear`,
        `nn.Conv2d` with one group, and modules without parameters.
    theta : float32 or float64 [P]
        The parameters without a mask.
    rate : float
        The probability of being dropped, from 0 to below 1.

    Raises
    ------
    ValueError
        For other modules, by name, or if there is no hidden unit.
    """

    network: FlatNetwork
    theta: torch.Tensor
    rate: float
    _masked: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self):
        _check_vectors(self.network, theta=self.theta, ndim=1)
        keep_checked(self, rate=checked_fraction(self.rate, "rate"))
        keep_checked(self, _masked=_masked_weights(self.network))

    def draw(self, samples: int, generator: torch.Generator) -> torch.Tensor:
        """Return theta under independent masks, [S, P]; see `Posterior.draw`."""
        checked_integer(samples, "samples", 1)
        device = checked_generator(generator, self.theta).device
        factors = torch.ones(samples, self.network.size, dtype=self.theta.dtype, device=device)
        weights = self.network.parts(factors)
        for name, inputs in self._masked.items():
            kept = torch.rand(samples, inputs, generator=generator, device=device) >= self.rate
            # Weights are [S, outputs, inputs, ...]; these are views, and `factors` is filled.
            ones = (1,) * (weights[name].ndim - 3)
            weights[name].copy_(
                kept.view(samples, 1, inputs, *ones).to(factors.dtype) / (1 - self.rate)
            )
        return self.theta * factors


def logits(network: FlatNetwork, thetas: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the logits of many networks, thetas [S, P], on the same images, [S, N, K].

    One batched forward; on one thread of a CPU a hand-written `baddbmm` would save a quarter of the
    time of a perceptron with 100 samples, which is not worth a second definition.
    """
    common_device(theta=thetas, x=x)
    check_dtype(x, "x", (thetas.dtype,))
    return torch.func.vmap(network, in_dims=(0, None))(thetas, x)


def standard_normal(
    samples: int, like: torch.Tensor, generator: torch.Generator | None
) -> torch.Tensor:
    """Return standard normal noise, [samples, *like.shape], of the dtype and device of `like`."""
    device = checked_generator(generator, like).device
    shape = (samples, *like.shape)
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=device)


def checked_generator(generator: object, like: torch.Tensor) -> torch.Generator:
    """Return a generator on the device of `like`, or refuse it by name."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is {generator!r}; accepted is a torch.Generator, as nothing is drawn from "
            "a hidden state"
        )
    if generator.device != like.device:
        raise ValueError(
            f"generator is on {generator.device}; accepted is {like.device}, where the parameters "
            "are"
        )
    return generator


def _check_vectors(network: FlatNetwork, *, ndim: int, **vectors: torch.Tensor) -> None:
    """Refuse parameters that are not finite vectors [P], or [S, P], of one dtype and device."""
    if not isinstance(network, FlatNetwork):
        raise TypeError(f"network is a {type(network).__name__}; accepted is a FlatNetwork")
    common_device(**vectors)
    first = next(iter(vectors.values()))
    for name, vector in vectors.items():
        shape, own = tuple(vector.shape), (network.size,)
        if vector.ndim != ndim or shape[-1:] != own or 0 in shape[:-1]:
            accepted = f"[{network.size}]" if ndim == 1 else f"[S, {network.size}], S from 1 up"
            raise ValueError(f"{name} has shape {shape}; accepted is {accepted}")
        check_dtype(vector, name, FLOATS if vector is first else (first.dtype,))
        check_finite(vector, name)


def _masked_weights(network: FlatNetwork) -> dict[str, int]:
    """Return the weights whose inputs are hidden units, by name, and how many these are."""
    found = {}
    for prefix, child in _layers(network.module, ""):
        if not any(True for _ in child.parameters()):
            continue
        if not found:
            found[prefix] = 0
            continue
        plain = type(child) is nn.Linear or (type(child) is nn.Conv2d and child.groups == 1)
        if not plain:
            raise ValueError(
                f"module has {type(child).__name__} {prefix!r}; accepted after the first "
                "layer with weights are nn.Linear, nn.Conv2d with one group and modules without "
                "parameters, for dropping a unit to be the same as zeroing its outgoing weights"
            )
        name = f"{prefix}.weight" if prefix else "weight"
        if name not in network.names:
            raise ValueError(
                f"module shares the weights of {prefix!r} with another layer; accepted are layers "
                "with weights of their own, as each has its own mask"
            )
        found[name] = child.weight.shape[1]
    if len(found) < 2:
        raise ValueError(
            f"module has {len(found)} layers with weights; accepted is 2 or more, as the units "
            "between them are dropped"
        )
    return dict(list(found.items())[1:])


def _layers(module: nn.Module, prefix: str):
    """Yield the modules of a sequence in their order, with their names, nested sequences opened."""
    if type(module) is nn.Sequential:
        for name, child in module._modules.items():
            yield from _layers(child, f"{prefix}.{name}".lstrip("."))
    else:
        yield prefix, module
