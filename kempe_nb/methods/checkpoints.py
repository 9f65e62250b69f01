"""Files that are whole or not there, and runs that go on from them with the same bits.

A checkpoint holds the configuration of what wrote it, in words and numbers. Whoever reads it has to
have the same one; the first difference is named. `Resumable` is a run of many steps on that ground.
"""

import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from kempe_nb.checks import checked_integer
from kempe_nb.methods.dataset_distillation import _checksum
from kempe_nb.networks.flat import FlatNetwork


def write_whole(state: Mapping, path: Path) -> None:
    """Write a state of tensors, numbers, words, lists and dicts; the file is whole or not there."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        torch.save(dict(state), part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_same(path: Path, configuration: Mapping, names: tuple[str, ...]) -> dict:
    """Return what `write_whole` wrote at `path`, if it has the same configuration.

    Parameters
    ----------
    configuration : mapping
        To compare the file's entry "configuration" with.
    names : tuple of str
        What the file holds besides, all of it.

    Returns
    -------
    dict
        Its tensors are on the CPU.

    Raises
    ------
    ValueError
        If the file is no such checkpoint, or belongs to another configuration; the first difference
        is named.
    """
    try:
        state = torch.load(Path(path), map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError):
        state = None
    if not isinstance(state, dict) or state.keys() != {"configuration", *names}:
        raise ValueError(
            f"{path} holds something else; accepted is a checkpoint, with configuration, "
            f"{', '.join(names)}"
        )
    other = state["configuration"]
    for name in dict(configuration) | other:
        if configuration.get(name) != other.get(name):
            raise ValueError(
                f"{path} belongs to {name} = {other.get(name)!r}; here it is "
                f"{configuration.get(name)!r}. Accepted is a checkpoint of the same configuration: "
                "take another path, or those settings"
            )
    return state


def network_configuration(network: FlatNetwork) -> dict:
    """Return what makes a network another one, in words and numbers."""
    return {
        "parameters of the network": network.size,
        "network": repr(network.module),
        "checksum of the network's buffers": _checksum(*network.module.buffers()),
    }


class Resumable(ABC):
    """A run of many steps that can be interrupted anywhere, and goes on with the same bits.

    A subclass says what a step is, and what has to be kept; `step` counts those taken.
    """

    #: What a checkpoint holds besides the configuration.
    contents: tuple[str, ...]

    @property
    @abstractmethod
    def step(self) -> int:
        """Steps that were taken."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether no step is left."""

    @abstractmethod
    def _one_step(self):
        """Take a step, whole or not at all, and return a record of it."""

    @abstractmethod
    def _configuration(self) -> dict:
        """Return what must be the same for a run to go on, in words and numbers."""

    @abstractmethod
    def _kept(self) -> dict:
        """Return what the run needs to go on, by the names in `contents`."""

    @abstractmethod
    def _take(self, kept: Mapping) -> None:
        """Go on from what `_kept` returned; its tensors come on the CPU."""

    def advance(self, steps: int = 1) -> Iterator:
        """Take steps, at most those that are left; yield what each of them did.

        Raises
        ------
        FloatingPointError
            If a number is not finite. The state stays that of the step before.
        """
        for _ in range(steps):
            if self.done:
                return
            yield self._one_step()

    def save(self, path: Path) -> None:
        """Write everything that a run needs to go on; the file is whole or not there."""
        write_whole({"configuration": self._configuration(), **self._kept()}, path)

    def resume(self, path: Path) -> None:
        """Go on where a saved run stopped.

        Raises
        ------
        ValueError
            If the file is no checkpoint, or belongs to another configuration; the first difference
            is named. Nothing has changed then.
        """
        self._take(read_same(path, self._configuration(), self.contents))

    def run(
        self, path: Path | None = None, *, every: int = 100, on_step: Callable | None = None
    ) -> None:
        """Take all steps that are left, from the checkpoint at `path` if there is one.

        Parameters
        ----------
        path : path, optional
            Of the checkpoint, written every `every` steps and at the end.
        on_step : callable, optional
            Called with the record of each step.

        Raises
        ------
        FileNotFoundError
            If the folder of `path` is not there.
        FloatingPointError
            As `advance`; the last checkpoint is named.
        """
        every = checked_integer(every, "every", 1, 2**31 - 1)
        saved = "none"
        if path is not None and not Path(path).parent.is_dir():
            raise FileNotFoundError(f"path is {path}; accepted is a file in a folder that exists")
        if path is not None and Path(path).exists():
            self.resume(path)
            saved = f"step {self.step} in {path}"
        while not self.done:
            try:
                record = self._one_step()
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}; the last checkpoint is {saved}") from None
            if on_step:
                on_step(record)
            if path is not None and (self.step % every == 0 or self.done):
                self.save(path)
                saved = f"step {self.step} in {path}"
