"""Networks as functions of one flat parameter vector, and their fresh initial vectors.

An unrolled inner loop, its adjoint and an ensemble under `vmap` all want the same thing: a network
f(theta, x) of one vector theta [P], or of many, [V, P]. The modules are ordinary ones of PyTorch;
`FlatNetwork` cuts theta into their parameters.
"""

import copy
import math

import torch
from torch import nn

from kempe_nb.networks.convnet import NormReluPool

#: Layers that PyTorch initialises uniformly in +- 1 / sqrt(inputs of a unit), weights and biases.
UNIFORM = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _draws_at_random(child: nn.Module) -> bool:
    if isinstance(child, nn.modules.dropout._DropoutNd):
        return child.p > 0
    if isinstance(child, nn.MultiheadAttention | nn.RNNBase):
        return child.dropout > 0
    return isinstance(child, nn.RReLU)


def _keeps_means(child: nn.Module) -> bool:
    if isinstance(child, nn.modules.instancenorm._InstanceNorm):
        return child.training and child.track_running_stats
    if isinstance(child, nn.modules.batchnorm._BatchNorm):
        return child.training or not child.track_running_stats
    return False


class FlatNetwork:
    """A module as a function of one parameter vector and of images.

    Parameters
    ----------
    module : nn.Module
        Is copied; its own parameters serve for names and shapes alone. Modules of your own must
        compute the same from the same parameters and images; nothing can be checked there.

    Raises
    ------
    ValueError
        If a module of PyTorch normalises by the batch, keeps running means, or draws at random: its
        output would depend on what was computed before, and the inner loop would not be a function
        of its parameters.
    """

    def __init__(self, module: nn.Module):
        for name, child in module.named_modules():
            if child.training and _draws_at_random(child):
                raise ValueError(
                    f"module has {type(child).__name__} {name!r} in training mode: a step that is "
                    "computed again would drop other units; accepted are networks that draw "
                    "nothing, or with such modules in eval mode"
                )
            if _keeps_means(child):
                raise ValueError(
                    f"module has {type(child).__name__} {name!r} in training mode: each step of an "
                    "unrolled loop would change its running means or mix the images of a batch, "
                    "so that no state of theta alone determines the next; accepted are networks "
                    "with instance or group normalisation, or with BatchNorm in eval mode"
                )
        # Whoever changes the mode of the module later changes another one.
        self.module = copy.deepcopy(module)
        self.names = [name for name, _ in module.named_parameters()]
        self.shapes = [p.shape for p in module.parameters()]
        self.sizes = [p.numel() for p in module.parameters()]

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(self.sizes)

    def parts(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parameters by name, views of theta [..., P]."""
        if theta.shape[-1:] != (self.size,):
            shape = tuple(theta.shape)
            raise ValueError(f"theta has shape {shape}; accepted is [..., {self.size}]")
        return {
            name: share.view(*theta.shape[:-1], *shape)
            for name, share, shape in zip(
                self.names, theta.split(self.sizes, -1), self.shapes, strict=True
            )
        }

    def __call__(self, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of one network, theta [P]."""
        return torch.func.functional_call(self.module, self.parts(theta), (images,))

    def initial(
        self,
        generator: torch.Generator,
        count: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Return a fresh vector with PyTorch's default initialisation, [P], or `count` of them.

        Linear layers and convolutions are uniform in +- 1 / sqrt(inputs of a unit), as their
        `reset_parameters` draws them; the weights of normalisation are one and its biases zero.

        Raises
        ------
        ValueError
            For parameters of any other module, by name.
        """
        scale, centre = self._law(dtype, generator.device)
        shape = (self.size,) if count is None else (count, self.size)
        draws = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
        return centre + scale * (2 * draws - 1)

    def _law(self, dtype, device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return half widths and centres of the uniform laws, [P] each."""
        scales, centres = {}, {}
        for prefix, child in self.module.named_modules():
            for name, parameter in child.named_parameters(recurse=False):
                key, count = f"{prefix}.{name}".lstrip("."), parameter.numel()
                if isinstance(child, UNIFORM):
                    half, centre = 1 / math.sqrt(math.prod(child.weight.shape[1:])), 0.0
                elif isinstance(child, NormReluPool | nn.GroupNorm | nn.InstanceNorm2d):
                    half, centre = 0.0, float(name == "weight")
                else:
                    raise ValueError(
                        f"module has a parameter {key!r} of {type(child).__name__}, whose "
                        "initialisation is not known here; accepted are linear layers, "
                        "convolutions, instance and group normalisation"
                    )
                scales[key], centres[key] = [half] * count, [centre] * count
        return tuple(
            torch.tensor([each for name in self.names for each in values[name]]).to(device, dtype)
            for values in (scales, centres)
        )
