"""Three objectives of robust training, and the loop that they share.

Standard training minimises the cross-entropy of images. Adversarial training (Madry et al., arXiv
1706.06083) minimises that of attacked images, made anew for every batch. TRADES (Zhang et al.,
arXiv 1901.08573) keeps the cross-entropy of clean images and adds a price for every difference
between the answers to clean and attacked ones. The settings are those of the code that Su et al.
(arXiv 2311.07444) published, at a size that the caller chooses: no augmentation, momentum 0.9,
weight decay on all parameters, and a rate that drops twice.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.checks import checked_choice
from kempe_nb.methods import attacks
from kempe_nb.methods.neural_collapse import nearest_centre, neural_collapse_metrics
from kempe_nb.networks.modes import evaluating
from kempe_nb.networks.perceptron import perceptron_bn
from kempe_nb.networks.resnet import preact_resnet18
from kempe_nb.networks.vgg import vgg11_bn

#: How the chapter trains, by profile. At 8/255 a radius is that of the paper's code.
RECIPES = {
    "cpu": {
        "epochs": 200,
        "batch_size": 288,
        "decay": 3e-3,
        # At the first rate NC1 jumps up sooner or later: at all of sixty seeds, for the first time
        # between epochs 68 and 114. A jump shortly before the rate drops would stay, so it drops
        # well before.
        "drops": (0.3, 0.6),
        "radius": 0.1,
        "inner_steps": 5,
    },
    "gpu": {"epochs": 100, "batch_size": 512, "decay": 5e-4, "radius": 8 / 255, "inner_steps": 10},
}
#: The networks of the chapter, and what tells them apart.
VARIANTS = {
    "standard": {"objective": "standard"},
    "adversarial": {"objective": "adversarial"},
    "TRADES": {"objective": "trades"},
    "standard, frozen": {"objective": "standard", "frozen": True},
    "adversarial, frozen": {"objective": "adversarial", "frozen": True},
    "TRADES, frozen": {"objective": "trades", "frozen": True},
    "adversarial, train mode": {"objective": "adversarial", "attack_mode": "train"},
}
NETWORKS = {"mlp": perceptron_bn, "vgg11_bn": vgg11_bn, "preact_resnet18": preact_resnet18}
#: What `measures_of` reads from the metrics of neural collapse.
MEASURES = (
    "nc1",
    "trace_ratio",
    "nc2_equinorm_means",
    "nc2_equiangular_means",
    "nc3",
    "nc4",
)


def standard(model, images, labels, attack):
    """Standard training: the cross-entropy of the images."""
    return F.cross_entropy(model(images), labels)


def adversarial(model, images, labels, attack):
    """Adversarial training: the cross-entropy of attacked images."""
    hit = attack(model, images, labels)
    return F.cross_entropy(model(hit), labels)


def trades(model, images, labels, attack, beta=6.0):
    """TRADES: cross-entropy, and beta times the KL divergence to attacked images."""
    with evaluating(model), torch.no_grad():
        answers = model(images).log_softmax(1)
    # It attacks the difference to these answers; the labels play no part in it.
    hit = attack(model, images, labels, loss=divergence_from(answers))
    clean, attacked = model(images).log_softmax(1), model(hit).log_softmax(1)
    gap = F.kl_div(attacked, clean, reduction="batchmean", log_target=True)
    return F.nll_loss(clean, labels) + beta * gap


OBJECTIVES: dict[str, Callable] = {
    "standard": standard,
    "adversarial": adversarial,
    "trades": trades,
}


def divergence_from(answers: torch.Tensor) -> attacks.Loss:
    """Return the loss KL(p || q) between fixed log-probabilities [N, K] and logits, [N]."""

    def divergence(logits, _labels):
        q = logits.log_softmax(1)
        return F.kl_div(q, answers, reduction="none", log_target=True).sum(1)

    return divergence


def plain_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each image, [N], as published code attacks it."""
    return F.cross_entropy(logits, labels, reduction="none")


def new_classifier(network: str, images: torch.Tensor, classes: int, seed: int) -> nn.Module:
    """Return an untrained network for images [N, ...], the same for every objective of a seed.

    Parameters
    ----------
    network : {"mlp", "vgg11_bn", "preact_resnet18"}
    """
    checked_choice(network, "network", NETWORKS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if network == "mlp":
            model = perceptron_bn(images[0].numel(), classes)
        else:
            model = NETWORKS[network](classes)
    return model.to(images.device, memory_format=torch.channels_last)


def untrained_classifier(network: str, images: torch.Tensor, classes: int, seed: int) -> nn.Module:
    """Return the network of `new_classifier` after it has seen images, but no label.

    Its batch normalisation knows the statistics of the images, as that of a trained network does:
    the null beside what training makes of the features.
    """
    model = new_classifier(network, images, classes, seed).train()
    with torch.no_grad():
        for _ in range(60):
            model(images[:576])
    return model.eval()


def train_variant(
    name: str, profile: str, images: torch.Tensor, labels: torch.Tensor, *, network: str, seed: int
) -> dict:
    """Train a network of the chapter, a name of `VARIANTS`; returns what `train_classifier` does.

    The diary is written after nine epochs, evenly spaced in the logarithm, the last one included.
    """
    checked_choice(name, "name", VARIANTS)
    checked_choice(profile, "profile", RECIPES)
    recipe = RECIPES[profile] | VARIANTS[name]
    marks = np.unique(np.geomspace(2, recipe["epochs"], 9).astype(int))
    watched = tuple(int(epoch) for epoch in marks)
    return train_classifier(images, labels, network=network, seed=seed, watched=watched, **recipe)


def train_classifier(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    objective: str = "standard",
    network: str = "mlp",
    frozen: bool = False,
    seed: int = 0,
    epochs: int = 200,
    batch_size: int = 288,
    rate: float = 0.1,
    decay: float = 3e-3,
    drops: Sequence[float] = (0.4, 0.7),
    radius: float = 0.1,
    inner_steps: int = 5,
    attack_mode: str = "eval",
    watched: Sequence[int] = (),
) -> dict:
    """Train a classifier and return its weights and a diary of its collapse.

    Parameters
    ----------
    images : float [N, ...], labels : int64 [N]
        Images within [0, 1].
    objective : {"standard", "adversarial", "trades"}
    frozen : bool
        Leave batch normalisation at its first statistics, mean 0 and variance 1, for the whole
        training, as the published code of TRADES does: it calls `eval` before its first attack and
        does not go back to training mode until the next epoch.
    drops : sequence of float
        After which shares of the epochs the rate drops to a tenth; parts of an epoch are rounded
        up.
    radius, inner_steps : float, int
        Of the attacks of training, in the maximum norm; a step is a quarter of the radius.
    attack_mode : {"eval", "train"}
        Whether batch normalisation uses its running statistics while adversarial training attacks,
        or those of the batch together with the plain cross-entropy, as in the published code.
    watched : sequence of int
        The epochs after which the diary is written.

    Returns
    -------
    dict
        "weights": the state of the network; "diary": for each watched epoch its number, the
        metrics `MEASURES` of the clean and of the attacked training images, and the class means,
        float32 [K, D].

    Raises
    ------
    ValueError
        For an unknown objective, network or attack_mode, a class without images, or a last batch of
        one image.
    """
    checked_choice(objective, "objective", OBJECTIVES)
    checked_choice(attack_mode, "attack_mode", ("eval", "train"))
    left = (len(images) - 1) % batch_size + 1
    if left == 1:
        # Batch normalisation has no variance of one image.
        raise ValueError(
            f"batch_size is {batch_size}; accepted is one that leaves more than one of "
            f"{len(images)} images for the last batch"
        )
    _refuse_empty(labels)
    device = images.device
    model = new_classifier(network, images, int(labels.max()) + 1, seed)
    generator = torch.Generator(device).manual_seed(seed + 1)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=decay)
    dropped = [math.ceil(round(share * epochs, 6)) for share in drops]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, dropped)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    attack = training_attack(radius, inner_steps, generator, attack_mode)
    loss_of, diary = OBJECTIVES[objective], []
    for epoch in range(1, epochs + 1):
        model.train(not frozen)
        order = torch.randperm(len(images), generator=generator, device=device)
        for own in order.split(batch_size):
            with half:
                loss = loss_of(model, images[own], labels[own], attack)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if epoch in watched:
            diary.append({"epoch": epoch, **observe(model.eval(), images, labels, radius, seed)})
    return {"weights": model.state_dict(), "diary": diary}


def restored(found: dict, network: str, images: torch.Tensor, classes: int) -> nn.Module:
    """Return the network of a training, from the weights that it returned.

    It is in evaluation mode and its weights ask for no gradient: who restores a network measures
    it, and a Jacobian of its features would hold those of all weights, too.
    """
    model = new_classifier(network, images, classes, seed=0)
    model.load_state_dict(found["weights"])
    return model.eval().requires_grad_(False)


def training_attack(radius, steps, generator, mode="eval") -> Callable:
    """Return the attack that training makes on every batch: a function of model, images, labels."""

    def attack(model, images, labels, loss=None):
        settings = {"steps": steps, "keep": "last", "generator": generator}
        if loss is not None:
            # TRADES starts from the image, moved by a noise that no answer notices.
            noise = torch.empty_like(images).normal_(0, 0.001, generator=generator)
            settings |= {"loss": loss, "start": images + noise}
        elif mode == "train":
            # What is not a module stays in training mode while it is attacked.
            settings["loss"], model = plain_cross_entropy, model.forward
        return attacks.pgd(model, images, labels, radius, **settings).images

    return attack


def observe(model, images, labels, radius, seed) -> dict:
    """Return the metrics `MEASURES` of clean and attacked images, and the clean class means."""
    generator = torch.Generator(images.device).manual_seed(seed + 2)
    hit = attack_in_parts(model, images, labels, radius, generator=generator)
    found = {}
    for name, shown in (("clean", images), ("attacked", hit)):
        found[name] = measures_of(collapse_metrics(model, shown, labels))
    return found | {"means": class_means(features_of(model, images), labels).cpu()}


def attack_in_parts(model, images, labels, radius, *, size: int = 2_000, **settings):
    """Return the images that PGD finds, attacked in parts that fit into memory."""
    parts = zip(images.split(size), labels.split(size), strict=True)
    return torch.cat([attacks.pgd(model, *part, radius, **settings).images for part in parts])


@torch.no_grad()
def features_of(model, images, size: int = 2_000) -> torch.Tensor:
    """Return the features of all images, float32 [N, D], computed in parts."""
    return torch.cat([model.features(part).float() for part in images.split(size)])


@torch.no_grad()
def answers_of(model, images, size: int = 2_000) -> torch.Tensor:
    """Return the class that a model sees in each image, int64 [N], computed in parts."""
    return torch.cat([model(part).argmax(1) for part in images.split(size)])


def collapse_metrics(model, images, labels):
    """Return the metrics of neural collapse of the last layer of a network."""
    head = model.head
    return neural_collapse_metrics(features_of(model, images), labels, head.weight, head.bias)


def measures_of(metrics) -> list[float]:
    """Return the numbers `MEASURES` of the metrics of neural collapse."""
    return [getattr(metrics, measure) for measure in MEASURES]


def class_means(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of each class, [K, ...]; every class has a sample."""
    _refuse_empty(labels)
    return torch.stack([features[labels == c].mean(0) for c in range(int(labels.max()) + 1)])


def _refuse_empty(labels: torch.Tensor) -> None:
    empty = (labels.bincount() == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"labels has no sample of the classes {empty}; accepted is one of each")


def angle_error(means: torch.Tensor) -> float:
    """Return NC2's mean of |cos + 1/(K-1)| over all pairs of rows, centred by their plain mean.

    The published metric centres by the mean of all samples. Where classes have different sizes, as
    after relabelling, that is another point, and angles about it say nothing of a simplex.
    """
    units = F.normalize((means - means.mean(0)).double().flatten(1), dim=1)
    classes = len(units)
    away = (units @ units.T + 1 / (classes - 1)).abs()
    return float((away.sum() - away.diagonal().sum()) / (classes * (classes - 1)))


def angle_between(means: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the angle of each mean to its partner in degrees, [K]; both sets are centred."""
    cosines = F.cosine_similarity(means - means.mean(0), others - others.mean(0))
    return torch.rad2deg(cosines.clamp(-1, 1).acos())


@torch.no_grad()
def layer_batches(model, layer: int, images, labels, size: int = 500) -> Iterator[tuple]:
    """Yield the activations behind a layer, flattened [n, D], with their labels, in parts.

    Layer 0 is the image itself. A convolution has tens of thousands of numbers for each image, so
    those of all images never stand in memory together.
    """
    for part, own in zip(images.split(size), labels.split(size), strict=True):
        yield activation(model, layer, part).flatten(1).float(), own


def activation(model, layer: int, images: torch.Tensor) -> torch.Tensor:
    """Return what stands behind the first blocks of a network, [N, ...]; differentiable."""
    for block in model.blocks[:layer]:
        images = block(images)
    return images


def centre_classifier(model, layer: int, centres: torch.Tensor) -> Callable:
    """Return the classifier by the nearest centre behind a layer, as logits that can be attacked.

    Parameters
    ----------
    centres : [K, D]
        Of the flattened activations.
    """

    def logits(images):
        features = activation(model, layer, images).flatten(1)
        return -torch.cdist(features, centres.to(features.dtype)).square()

    return logits


def by_centres(model, centres: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return the class of the nearest centre of each image's features, int64 [N]."""
    return nearest_centre(features_of(model, images), centres)
