"""Where the window of a meta-gradient lies in its unroll: BPTT, truncated, random, RaT-BPTT.

Feng, Vedantam and Kempe, "Embarrassingly Simple Dataset Distillation" (arXiv 2311.07025).
"""

from dataclasses import dataclass

import numpy as np

from kempe_nb.checks import checked_choice, checked_integer, keep_checked
from kempe_nb.methods.unrolled import checked_window

#: Where a window lies in the unroll.
PLACEMENTS = ("full", "last", "random length", "random", "fixed", "moving")
#: The seed of what is drawn here, beside those of a distillation.
_WINDOW = 0


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
        checked_choice(self.placement, "placement", PLACEMENTS)
        keep_checked(
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
