"""Data set distillation by matching the trajectories of experts: MTT, DATM and STM in one run.

An iteration takes the next expert and a start epoch s among the first K, trains a student from the
expert's parameters theta*_s on the synthetic images for N steps with the learned rate alpha, and
moves images and log alpha along the gradient (exact, unless another is asked for) of

    Loss = |theta_N - theta*_(s + E)|^2 / |theta*_s - theta*_(s + E)|^2

by descent with momentum; see `trajectory_matching`. Which K is the pool's choice, see
`epoch_pools`: a fixed one (Cazenavette and others, arXiv 2203.11932), a schedule (Guo and others,
arXiv 2310.05773), or a test of the loss beyond the pool (Guan and others, arXiv 2311.17967). The
rest is in the form of their public codes, but for three things: log alpha is learned, as STM does,
whatever the pool is; a probe builds no graph; and labels stay one-hot, where DATM learns them.

Everything that is drawn comes from the seed and the number of the iteration, or of the round of
experts. So a run that was interrupted goes on with the same bits, and probes change nothing but K.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from kempe_nb.checks import (
    check_finite,
    check_labels,
    checked_choice,
    checked_fraction,
    checked_integer,
    checked_not_negative,
    checked_positive,
    common_device,
    keep_checked,
)
from kempe_nb.methods.augmentation import inner_batches
from kempe_nb.methods.checkpoints import Resumable
from kempe_nb.methods.dataset_distillation import _checksum, _loss_of
from kempe_nb.methods.epoch_pools import Pool, Stage
from kempe_nb.methods.expert_trajectories import (
    Augment,
    Experts,
    augmented,
    check_augmentation,
    checked_name,
)
from kempe_nb.methods.student_rates import Rates, descended, is_log_alpha
from kempe_nb.methods.trajectory_matching import Student, match, match_without_hessians, probe
from kempe_nb.methods.unrolled import Batch

EACH = "each epoch"
ALPHAS = "one", EACH
STARTS = "cycle", "uniform"
EXACT = "exact"
GRADIENTS = EXACT, "without hessians"

# Seeds of what is drawn in an iteration, beside those of experts; `augmentation` has 3.
_ORDER, _START, _PANEL, _AUGMENT = 6, 7, 8, 9


@dataclass(frozen=True)
class Settings:
    """Everything that decides on a run, besides the experts and the images at the start.

    Attributes
    ----------
    pool : Fixed, Growing or SelfAdaptive
    steps : int
        N, steps of the student.
    distance : int
        E, epochs from start to target; 1 for STM.
    image_rate : float
        Of the images.
    momentum : float
        Of images and log alpha, from 0 to below 1.
    alpha : float
        The student's rate at the start.
    log_alpha_rate : float
        Of log alpha; 0 keeps it.
    alphas : str
        "one" for all start epochs, or one for "each epoch" in the pool. Each of these starts as a
        copy of the last when its epoch joins, and as it is met in one of K iterations its rate is K
        times as large.
    start : str
        Start epochs are met in a "cycle", iteration mod K, or are "uniform" in the pool.
    gradient : str
        "exact", or "without hessians", as TESLA has it; see `trajectory_matching`.
    iterations : int
        The run ends after these, or before where the pool says so.
    per_class : int or None
        Synthetic images of each class in a step of the student, drawn anew; None takes all of them.
    augmentation : str or None
        A name for the function that changes the images of a step. Name it anew when you change it.
    seed : int
    """

    pool: Pool
    steps: int
    distance: int = 1
    image_rate: float = 1000.0
    momentum: float = 0.5
    alpha: float = 0.01
    log_alpha_rate: float = 0.01
    alphas: str = "one"
    start: str = "cycle"
    gradient: str = EXACT
    iterations: int = 1000
    per_class: int | None = None
    augmentation: str | None = None
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.pool, Pool):
            kind = type(self.pool).__name__
            raise TypeError(f"pool is a {kind}; accepted is Fixed, Growing or SelfAdaptive")
        checked_choice(self.alphas, "alphas", ALPHAS)
        checked_choice(self.start, "start", STARTS)
        checked_choice(self.gradient, "gradient", GRADIENTS)
        for name in ("steps", "distance", "iterations", "per_class"):
            value = getattr(self, name)
            if name != "per_class" or value is not None:
                keep_checked(self, **{name: checked_integer(value, name, 1, 2**31 - 1)})
        keep_checked(
            self,
            image_rate=checked_positive(self.image_rate, "image_rate"),
            momentum=checked_fraction(self.momentum, "momentum"),
            alpha=checked_positive(self.alpha, "alpha"),
            log_alpha_rate=checked_not_negative(self.log_alpha_rate, "log_alpha_rate"),
            augmentation=checked_name(self.augmentation),
            seed=checked_integer(self.seed, "seed", 0, 2**32 - 1),
        )
        if self.image_rate <= self.pool.floor:
            raise ValueError(
                f"image_rate is {self.image_rate:g}; accepted is a rate above the floor of the "
                f"pool, {self.pool.floor:g}"
            )


class Record(NamedTuple):
    """What an iteration did.

    Attributes
    ----------
    number : int
        From 0.
    expert, start : int
        Its expert and start epoch.
    loss : float
        The matching loss before the images moved.
    probe : float or None
        The loss from epoch K on, before the images moved; None where it was not asked for.
    pool : int
        K after it.
    log_alpha : float
        Of the start epoch, after it.
    image_rate : float
        That the images moved with.
    said : str or None
        What the test said of the probes so far, see `level_up.decision`; None without a probe.
    """

    number: int
    expert: int
    start: int
    loss: float
    probe: float | None
    pool: int
    log_alpha: float
    image_rate: float
    said: str | None


class _State(NamedTuple):
    """Where a run is."""

    step: int
    images: torch.Tensor
    velocity: torch.Tensor
    rates: Rates
    stage: Stage
    records: tuple[Record, ...]


class TrajectoryDistillation(Resumable):
    """A synthetic set that is being distilled.

    Parameters
    ----------
    experts : Experts
    images : like the experts' real images, [n, ...]
        The synthetic images at the start, see `kempe_nb.methods.coresets`.
    classes : int64 [n]
        Their classes.
    settings : Settings
    augment : callable, optional
        `augment(images, rng)`, differentiable in the images, whose name is `settings.augmentation`.
        It is called twice for a step of the student, with equal generators.

    Raises
    ------
    TypeError
        For experts or settings that are none.
    ValueError
        For a pool beyond the epochs of the experts, a panel of more experts than there are, images
        that are not like the real ones or not finite, a class that does not exist, more images of a
        class in a step than there are, an alpha beyond the numbers of the type, an augmentation
        without a name or a name without an augmentation, or two devices.
    """

    contents = _State._fields

    def __init__(
        self,
        experts: Experts,
        images: torch.Tensor,
        classes: torch.Tensor,
        settings: Settings,
        *,
        augment: Augment | None = None,
    ):
        _check(experts, images, classes, settings, augment)
        self.experts, self.settings, self.augment = experts, settings, augment
        self.classes = classes.clone()
        count = _outputs(experts, images)
        check_labels(classes, count)
        self.labels = F.one_hot(self.classes, count).to(images.dtype)
        self.loss = _loss_of(experts.network)
        self._largest = settings.pool.largest(experts.epochs - settings.distance + 1)
        rng = np.random.default_rng([settings.seed, _PANEL])
        self._panel = rng.permutation(experts.count)[: settings.pool.panel].tolist()
        self._start = _checksum(images)
        stage, images = settings.pool.begin(), images.detach().clone()
        rates = Rates.begin(settings.alpha, stage.epochs if settings.alphas == EACH else 1)
        self._state = _State(0, images, torch.zeros_like(images), rates, stage, ())

    @property
    def step(self) -> int:
        """Iterations that were taken."""
        return self._state.step

    @property
    def done(self) -> bool:
        """Whether all iterations were taken, or the pool has come to its end."""
        settings, state = self.settings, self._state
        ended = settings.pool.done(state.stage, settings.image_rate)
        return ended or state.step >= settings.iterations

    @property
    def images(self) -> torch.Tensor:
        """The synthetic images, [n, ...]."""
        return self._state.images

    @property
    def log_alphas(self) -> tuple[float, ...]:
        """log alpha: one, or one for each start epoch in the pool."""
        return self._state.rates.logs

    @property
    def pool(self) -> int:
        """K, the number of start epochs."""
        return self._state.stage.epochs

    @property
    def records(self) -> tuple[Record, ...]:
        """What each iteration did, from the first one on."""
        return self._state.records

    def losses(self, experts: Sequence[int] | None = None) -> torch.Tensor:
        """Return the matching loss of the present images from each start epoch, [experts, starts].

        Without batches and augmentation. Beyond the pool the last alpha is taken.

        Parameters
        ----------
        experts : sequence of int, optional
            All of them by default.
        """
        chosen = range(self.experts.count) if experts is None else experts
        starts = range(self.experts.epochs - self.settings.distance + 1)
        rows = [
            [
                probe(self._student(s, None), *self.experts.pair(e, s, self.settings.distance))
                for s in starts
            ]
            for e in chosen
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def _one_step(self) -> Record:
        settings, state = self.settings, self._state
        expert, start = self._expert(), self._start_epoch()
        where = f"iteration {state.step} (expert {expert}, start epoch {start})"
        batch = self._batch()
        beyond = self._probe(expert, batch, where) if settings.pool.probes(state.stage) else None
        pair = self.experts.pair(expert, start, settings.distance)
        find = match if settings.gradient == EXACT else match_without_hessians
        found = find(self._student(start, batch), *pair)
        numbers = found.loss, *found.gradients, found.log_rate
        self._refuse_not_finite(f"the gradient of {where}", *numbers)
        image_rate = settings.image_rate * settings.pool.factor(state.stage)
        images, velocity = descended(
            *(state.images, state.velocity, found.gradients[0], image_rate, settings.momentum)
        )
        self._refuse_not_finite(f"an image after {where}", images)
        rates = state.rates.moved(
            start, float(found.log_rate), settings.log_alpha_rate, settings.momentum
        )
        self._refuse_rate(rates.log_alpha(start), where)
        stage, said = settings.pool.after(state.stage, state.step, beyond, self._largest)
        if settings.alphas == EACH:
            rates = rates.joined(stage.epochs)
        record = Record(
            *(state.step, expert, start, float(found.loss), beyond, stage.epochs),
            *(rates.log_alpha(start), image_rate, said),
        )
        # Whoever interrupts finds the iteration done, or not begun.
        records = (*state.records, record)
        self._state = _State(state.step + 1, images, velocity, rates, stage, records)
        return record

    def _expert(self) -> int:
        """Return the next expert in the order of the round."""
        turn, place = divmod(self.step, self.experts.count)
        rng = np.random.default_rng([self.settings.seed, turn, _ORDER])
        return int(rng.permutation(self.experts.count)[place])

    def _start_epoch(self) -> int:
        if self.settings.start == "cycle":
            return self.step % self.pool
        rng = np.random.default_rng([self.settings.seed, self.step, _START])
        return int(rng.integers(self.pool))

    def _batch(self) -> Batch | None:
        """Return the function that chooses and augments the data of a student's step, if any."""
        settings, augment = self.settings, self.augment
        seed = [settings.seed, self.step]
        drawn = inner_batches(self.classes, per_class=settings.per_class, seed=seed)
        if augment is None:
            return drawn if settings.per_class is not None else None

        def batch(synthetic, step):
            images, labels = drawn(synthetic, step)
            rng = np.random.default_rng([*seed, step, _AUGMENT])
            return augmented(augment, images, rng), labels

        return batch

    def _student(self, start: int, batch: Batch | None) -> Student:
        log_alpha = self._state.rates.log_alpha(start)
        return Student(self.loss, (self.images, self.labels), log_alpha, self.settings.steps, batch)

    def _probe(self, expert: int, batch: Batch | None, where: str) -> float:
        """Return the mean loss of the panel, or that of the expert, from epoch K on."""
        student = self._student(self.pool, batch)
        pairs = (
            self.experts.pair(each, self.pool, self.settings.distance)
            for each in self._panel or [expert]
        )
        mean = torch.stack([probe(student, *pair) for pair in pairs]).mean()
        self._refuse_not_finite(f"the probe of {where}", mean)
        return float(mean)

    def _refuse_rate(self, log_alpha: float, where: str) -> None:
        if not is_log_alpha(log_alpha, self.images.dtype):
            raise FloatingPointError(
                f"log alpha after {where} is {log_alpha:g}, no logarithm of a number of "
                f"{self.images.dtype}; the state is that after {self.step} iterations"
            )

    def _refuse_not_finite(self, what: str, *tensors) -> None:
        if not all(each.isfinite().all() for each in tensors):
            raise FloatingPointError(
                f"{what} is not finite; the state is that after {self.step} iterations"
            )

    def _kept(self) -> dict:
        state = self._state
        lists = {"rates": list(state.rates), "stage": list(state.stage)}
        return state._asdict() | lists | {"records": [list(each) for each in state.records]}

    def _take(self, kept: Mapping) -> None:
        logs, velocities = map(tuple, kept["rates"])
        epochs, probes, annealed = kept["stage"]
        self._state = _State(
            kept["step"],
            *(kept[name].to(self.images.device) for name in ("images", "velocity")),
            *(Rates(logs, velocities), Stage(epochs, tuple(probes), annealed)),
            tuple(Record(*each) for each in kept["records"]),
        )

    @cached_property
    def _checksum_of_experts(self) -> str:
        # Of gigabytes, for large networks.
        return _checksum(self.experts.snapshots)

    def _configuration(self) -> dict:
        settings, pool = asdict(self.settings), asdict(self.settings.pool)
        return {
            **settings,
            "pool": type(self.settings.pool).__name__,
            **{f"pool.{name}": value for name, value in pool.items()},
            **{f"experts.{name}": value for name, value in self.experts.configuration.items()},
            "experts": self.experts.count,
            "checksum of the experts": self._checksum_of_experts,
            "synthetic images": list(self.images.shape),
            "checksum of the synthetic images at the start": self._start,
            "classes": self.classes.tolist(),
        }


def _check(experts, images, classes, settings, augment) -> None:
    if not isinstance(experts, Experts):
        raise TypeError(f"experts is a {type(experts).__name__}; accepted are Experts")
    if not isinstance(settings, Settings):
        raise TypeError(f"settings is a {type(settings).__name__}; accepted is a Settings")
    common_device(snapshots=experts.snapshots, images=images, classes=classes)
    like = images.shape[1:] == experts.image and images.dtype == experts.dtype
    if not (like and len(images)):
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; accepted are images like the "
            f"experts' real ones, {experts.dtype} {('n', *experts.image)}, at least one"
        )
    check_finite(images, "images")
    if classes.shape != (len(images),) or classes.dtype != torch.int64:
        raise ValueError(
            f"classes are {classes.dtype} {tuple(classes.shape)}; accepted is int64 "
            f"[{len(images)}], one for each synthetic image"
        )
    smallest = int(classes.unique(return_counts=True)[1].min())
    if settings.per_class is not None:
        checked_integer(settings.per_class, "per_class", 1, smallest)
    checked_integer(settings.distance, "distance", 1, experts.epochs)
    checked_integer(settings.pool.panel, "panel", 0, experts.count)
    check_augmentation(settings.augmentation, augment)
    if not is_log_alpha(math.log(settings.alpha), images.dtype):
        raise ValueError(
            f"alpha is {settings.alpha:g}; accepted is a number that {images.dtype} holds"
        )


@torch.no_grad()
def _outputs(experts: Experts, images: torch.Tensor) -> int:
    """Return how many classes the network tells apart."""
    return experts.network(experts.pair(0, 0)[0], images[:1]).shape[1]
