"""Which epochs of the experts a trajectory matching starts from: a fixed pool, or one that grows.

A start epoch is drawn among 0, ..., K - 1. What K should be decides on much, and is hard to know:

    fixed            MTT (Cazenavette and others, arXiv 2203.11932),
    growing          by a schedule, DATM (Guo and others, arXiv 2310.05773),
    self-adaptive    by a test of the loss at the first epoch beyond the pool, STM (Guan and others,
                     arXiv 2311.17967); see `level_up`.

For the latter two we follow the public codes. STM's bookkeeping there looks at its probes by the
number of the iteration, and may level up while it anneals; here it looks by the number of the
probes in a stage, and annealing is the end.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from kempe_nb.checks import (
    checked_fraction,
    checked_integer,
    checked_not_negative,
    checked_positive,
    keep_checked,
)
from kempe_nb.methods.level_up import NEITHER, decision


class Stage(NamedTuple):
    """Where a pool is before an iteration.

    Attributes
    ----------
    epochs : int
        K.
    probes : tuple of float
        Losses at the epoch beyond the pool, since the last level-up.
    annealed : int or None
        Iterations of annealing that were taken; None before it begins.
    """

    epochs: int
    probes: tuple[float, ...] = ()
    annealed: int | None = None


class Pool(ABC):
    """A rule for K; by default without probes, at the rate given, and without an end of its own."""

    panel = 0
    floor = 0.0

    @abstractmethod
    def begin(self) -> Stage:
        """Return the stage before the first iteration."""

    @abstractmethod
    def largest(self, starts: int) -> int:
        """Return the largest K there will be where experts have start epochs 0 to `starts` - 1.

        Raises
        ------
        ValueError
            For a pool that needs more of them.
        """

    @abstractmethod
    def after(
        self, stage: Stage, number: int, probe: float | None, largest: int
    ) -> tuple[Stage, str | None]:
        """Return the stage after iteration `number`, from 0, and what a test said of the probes."""

    def probes(self, stage: Stage) -> bool:
        """Return whether the loss beyond the pool is asked for."""
        return False

    def factor(self, stage: Stage) -> float:
        """Return what the rate of the images is multiplied with."""
        return 1.0

    def done(self, stage: Stage, image_rate: float) -> bool:
        """Return whether the run has come to its end before its iterations have."""
        return False


@dataclass(frozen=True)
class Fixed(Pool):
    """Start epochs 0 to K - 1 from the beginning on.

    Attributes
    ----------
    epochs : int
        K.
    """

    epochs: int

    def __post_init__(self):
        keep_checked(self, epochs=checked_integer(self.epochs, "epochs", 1, 2**31 - 1))

    def begin(self) -> Stage:
        """Return K."""
        return Stage(self.epochs)

    def largest(self, starts: int) -> int:
        """Return K, or refuse it where the experts have fewer start epochs."""
        return checked_integer(self.epochs, "epochs of the pool", 1, starts)

    def after(self, stage, number, probe, largest):
        """Return the same stage."""
        return stage, None


@dataclass(frozen=True)
class Growing(Pool):
    """K grows on a line from `first` to `last`: min(last, first + floor((last - first) it / over)).

    Attributes
    ----------
    first, last : int
        K in iteration 0, and from iteration `over` on.
    over : int
        Iterations.
    """

    first: int
    last: int
    over: int

    def __post_init__(self):
        first = checked_integer(self.first, "first", 1, 2**31 - 1)
        last = checked_integer(self.last, "last", first, 2**31 - 1)
        keep_checked(self, first=first, last=last, over=checked_integer(self.over, "over", 1))

    def bound(self, number: int) -> int:
        """Return K in iteration `number`, from 0."""
        return self.first + (self.last - self.first) * min(number, self.over) // self.over

    def begin(self) -> Stage:
        """Return the first K."""
        return Stage(self.first)

    def largest(self, starts: int) -> int:
        """Return the last K, or refuse it where the experts have fewer start epochs."""
        return checked_integer(self.last, "last of the pool", 1, starts)

    def after(self, stage, number, probe, largest):
        """Return the bound of the next iteration."""
        return Stage(self.bound(number + 1)), None


@dataclass(frozen=True)
class SelfAdaptive(Pool):
    """K grows by one whenever a test says so, and once it is silent for long the rate anneals.

    Attributes
    ----------
    first : int
        K at the start.
    last : int or None
        K grows no further; None for as far as the experts go.
    threshold, rise : float
        Of the test, in sigma: lambda for a fall, another one for a rise; math.inf for no rises.
    every : int
        Probes from one look to the next.
    patience : int
        T_max: so many probes without a level-up begin the annealing. It ends the probing.
    panel : int
        Experts that a probe averages over, a fixed set; 0 for the expert of the iteration alone, as
        published.
    decay, decay_every, floor : float, int, float
        The rate of the images is multiplied with `decay` after every `decay_every` iterations of
        annealing; the run ends when it is below `floor`.
    """

    first: int = 1
    last: int | None = None
    threshold: float = 5.0
    rise: float = 3.0
    every: int = 10
    patience: int = 1000
    panel: int = 0
    decay: float = 0.8
    decay_every: int = 50
    floor: float = 50.0

    def __post_init__(self):
        first = checked_integer(self.first, "first", 1, 2**31 - 1)
        if self.last is not None:
            keep_checked(self, last=checked_integer(self.last, "last", first, 2**31 - 1))
        if self.rise != math.inf:
            keep_checked(self, rise=checked_positive(self.rise, "rise"))
        if checked_fraction(self.decay, "decay") == 0:
            raise ValueError(f"decay is {self.decay!r}; accepted is a number between 0 and 1")
        keep_checked(
            self,
            first=first,
            threshold=checked_positive(self.threshold, "threshold"),
            every=checked_integer(self.every, "every", 1, 2**31 - 1),
            patience=checked_integer(self.patience, "patience", 1, 2**31 - 1),
            panel=checked_integer(self.panel, "panel", 0, 2**31 - 1),
            decay=float(self.decay),
            decay_every=checked_integer(self.decay_every, "decay_every", 1, 2**31 - 1),
            floor=checked_not_negative(self.floor, "floor"),
        )

    def begin(self) -> Stage:
        """Return the first K, without a probe."""
        return Stage(self.first)

    def largest(self, starts: int) -> int:
        """Return the last K, or refuse it: the epoch beyond the pool is a start epoch as well."""
        if self.last is not None:
            return checked_integer(self.last, "last of the pool", 1, starts - 1)
        checked_integer(self.first, "first of the pool", 1, starts - 1)
        return starts - 1

    def probes(self, stage: Stage) -> bool:
        """Return whether annealing has not begun."""
        return stage.annealed is None

    def after(self, stage, number, probe, largest):
        """Return the next stage: as before with one more probe, wider, or annealing."""
        if stage.annealed is not None:
            return stage._replace(annealed=stage.annealed + 1), None
        probes = (*stage.probes, probe)
        said = decision(probes, threshold=self.threshold, rise=self.rise, every=self.every)
        if said != NEITHER:
            return Stage(min(stage.epochs + 1, largest)), said
        return Stage(stage.epochs, probes, 0 if len(probes) >= self.patience else None), said

    def factor(self, stage: Stage) -> float:
        """Return the decay so far."""
        return self.decay ** ((stage.annealed or 0) // self.decay_every)

    def done(self, stage: Stage, image_rate: float) -> bool:
        """Return whether the rate, annealed from `image_rate`, is below the floor."""
        return stage.annealed is not None and image_rate * self.factor(stage) < self.floor
