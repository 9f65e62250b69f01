"""The arithmetic task of the transformer experiments: the greatest common divisor of two integers.

After Charton's "Can transformers learn the greatest common divisor?" (arXiv 2308.15594), which *A
Tale of Tails* takes up in its section 6. Operands are uniform, written in some base, most
significant digit first; the model writes the digits of the answer behind those of the operands. The
answer k has probability 6/(pi^2 k^2) for large operands: a Zipf law with exponent 2 over skills.
"""

from dataclasses import dataclass

import torch

from kempe_nb.checks import checked_integer, keep_checked
from kempe_nb.networks.transformer import Transformer, generate


@dataclass(frozen=True)
class GcdTask:
    """Pairs of integers below base^digits as sequences of digits.

    Attributes
    ----------
    base : int
        At least 2; also the size of the vocabulary.
    digits : int
        Digits of each operand and of the answer.
    """

    base: int = 60
    digits: int = 2

    def __post_init__(self):
        for name, least in (("base", 2), ("digits", 1)):
            keep_checked(self, **{name: checked_integer(getattr(self, name), name, least)})
        if self.base**self.digits > 2**31:
            raise ValueError(
                f"digits is {self.digits} at base {self.base}; accepted are operands below 2^31"
            )

    @property
    def largest(self) -> int:
        """The largest operand, base^digits - 1; the smallest is 1."""
        return self.base**self.digits - 1

    @property
    def length(self) -> int:
        """Tokens of one example, two operands and an answer."""
        return 3 * self.digits

    @property
    def given(self) -> int:
        """Tokens of the two operands: the first position that a model has to predict."""
        return 2 * self.digits

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return uniform pairs, int64 [count, 2], on the generator's device."""
        shape = (count, 2)
        device = generator.device
        return torch.randint(1, self.largest + 1, shape, generator=generator, device=device)

    def draw_with_gcd(self, divisor: int, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return uniform pairs among those whose greatest common divisor is the one given.

        Raises
        ------
        ValueError
            Unless the divisor is an integer from 1 to the largest operand.
        """
        if (
            not isinstance(divisor, int)
            or isinstance(divisor, bool)
            or not 1 <= divisor <= self.largest
        ):
            raise ValueError(f"divisor is {divisor!r}; accepted are 1 to {self.largest}")
        found = torch.empty((0, 2), dtype=torch.int64, device=generator.device)
        while len(found) < count:
            high, shape = self.largest // divisor + 1, (2 * count, 2)
            reduced = torch.randint(1, high, shape, generator=generator, device=generator.device)
            coprime = reduced[torch.gcd(reduced[:, 0], reduced[:, 1]) == 1]
            found = torch.cat([found, divisor * coprime])
        return found[:count]

    def encode(self, operands: torch.Tensor, answers: torch.Tensor | None = None) -> torch.Tensor:
        """Return the digits of operands [count, 2] and answers [count], int64 [count, length].

        Without answers, the true ones are taken.

        Raises
        ------
        ValueError
            For a number that does not fit into the digits.
        """
        if answers is None:
            answers = torch.gcd(operands[:, 0], operands[:, 1])
        numbers = torch.cat([operands, answers[:, None]], 1)
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) <= self.largest:
            raise ValueError(
                f"operands and answers hold {int(numbers.min())} to {int(numbers.max())}; accepted "
                f"are 0 to {self.largest}"
            )
        powers = self.base ** torch.arange(self.digits - 1, -1, -1, device=numbers.device)
        return (numbers[:, :, None] // powers % self.base).flatten(1)

    def answer(
        self,
        model: Transformer,
        operands: torch.Tensor,
        generator: torch.Generator,
        temperature: float = 0.0,
    ) -> torch.Tensor:
        """Return what a model answers to operands [count, 2], int64 [count].

        Temperature 0 takes the most probable digit each time; above it, answers are drawn.
        """
        prompt = self.encode(operands)[:, : self.given]
        digits = generate(model, prompt, self.digits, generator, temperature=temperature)
        powers = self.base ** torch.arange(self.digits - 1, -1, -1, device=digits.device)
        return (digits * powers).sum(1)

    def share_right(
        self, model: Transformer, divisors: list[int], generator: torch.Generator, count: int = 100
    ) -> torch.Tensor:
        """Return for each divisor the share of right answers on `count` pairs that have it."""
        operands = torch.cat([self.draw_with_gcd(k, count, generator) for k in divisors])
        right = self.answer(model, operands, generator) == torch.gcd(*operands.T)
        return right.view(len(divisors), count).double().mean(1).cpu()
