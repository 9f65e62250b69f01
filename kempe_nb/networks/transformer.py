"""A small decoder-only transformer to read: the model, its training, and sampling from it.

Tokens are integers; position i of the output holds the logits of token i + 1. The layers are those
of GPT-2 with the norm in front (Radford et al., 2019): attention over the past, then two linear
maps with a GELU between them, each added to what came in.

    model = Transformer(Shape(vocabulary=60, context=5, width=64, layers=1, heads=4), generator)
    for loss in train(model, batches, learning_rate=2e-3, steps=400):
        ...
    text = generate(model, prompt, 32, generator, temperature=0.9, top_p=0.9)

Nothing here knows what the tokens mean. All randomness comes from a `torch.Generator` that the
caller gives, on the device of the model.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.nn import functional

from kempe_nb.checks import checked_integer, keep_checked


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer.

    Attributes
    ----------
    vocabulary : int
        Number of token types; tokens are 0, ..., vocabulary - 1.
    context : int
        Longest sequence, in tokens.
    width : int
        Length of the vector that stands for a token inside the model; a multiple of `heads`.
    layers, heads : int
        Number of layers, and of attention heads in each.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int

    def __post_init__(self):
        for field in fields(self):
            size = checked_integer(getattr(self, field.name), field.name, 1)
            keep_checked(self, **{field.name: size})
        if self.width % self.heads:
            raise ValueError(
                f"width is {self.width} with {self.heads} heads; accepted is a multiple of heads"
            )


class Layer(nn.Module):
    """Attention over the past, then two linear maps with a GELU between them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix_heads = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Map x [B, L, width] to the same shape; also return keys and values [B, H, past + L, _].

        With a `past`, x holds the next token alone (L = 1), which may look at everything.
        """
        batch, length, width = x.shape
        split = self.query_key_value(self.norm_attention(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        x = x + self.mix_heads(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm_mlp(x)), (key, value)


class Transformer(nn.Module):
    """Logits of the next token for every position of a sequence.

    Parameters
    ----------
    shape : Shape
    generator : torch.Generator
        Draws the initial weights; the model is made on its device.

    Notes
    -----
    Embeddings are normal with standard deviation 0.02, and linear maps with 0.5/sqrt(inputs); those
    that end a branch are divided by sqrt(2 layers), as in GPT-2. Biases start at zero. The output
    map is not tied to the embedding.
    """

    def __init__(self, shape: Shape, generator: torch.Generator):
        super().__init__()
        self.shape = shape
        # On the meta device nothing is drawn: PyTorch's own initial weights would cost time, and
        # move its global random state.
        with torch.device("meta"):
            self.embed = nn.Embedding(shape.vocabulary, shape.width)
            self.positions = nn.Parameter(torch.empty(shape.context, shape.width))
            self.layers = nn.ModuleList(
                Layer(shape.width, shape.heads) for _ in range(shape.layers)
            )
            self.norm = nn.LayerNorm(shape.width)
            self.to_logits = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.to_empty(device=generator.device)
        self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for weights in (self.embed.weight, self.positions):
            weights.normal_(0, 0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, 0.5 / math.sqrt(module.in_features), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        for layer in self.layers:
            for last in (layer.mix_heads, layer.mlp[-1]):
                last.weight /= math.sqrt(2 * self.shape.layers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.positions.device

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits [B, L, vocabulary] for tokens int64 [B, L] with 1 <= L <= context."""
        return self.continue_from(tokens, None)[0]

    def continue_from(self, tokens: torch.Tensor, past: list | None) -> tuple[torch.Tensor, list]:
        """Return logits and the keys and values of all layers, for sampling token by token."""
        if past is not None and tokens.shape[1] != 1:
            raise ValueError(
                f"tokens holds {tokens.shape[1]} positions behind a past; accepted is the next one"
            )
        start = 0 if past is None else past[0][0].shape[2]
        if not 0 < start + tokens.shape[1] <= self.shape.context:
            raise ValueError(
                f"tokens end at position {start + tokens.shape[1]}; accepted are 1 to "
                f"{self.shape.context}, the context"
            )
        x = self.embed(tokens) + self.positions[start : start + tokens.shape[1]]
        kept = []
        for layer, before in zip(self.layers, past or [None] * len(self.layers), strict=True):
            x, keys_values = layer(x, before)
            kept.append(keys_values)
        return self.to_logits(self.norm(x)), kept


def token_losses(model: Transformer, tokens: torch.Tensor, first: int = 1) -> torch.Tensor:
    """Return the cross-entropy of each token in nats, float32 [B, L - first].

    Parameters
    ----------
    model : Transformer
    tokens : torch.Tensor
        int64 [B, L] with L at most context + 1: the last token is only predicted.
    first : int
        The first position that is predicted; those before it are given.
    """
    if not 1 <= first < tokens.shape[1]:
        raise ValueError(f"first is {first!r}; accepted is an integer from 1 to L - 1")
    logits = model(tokens[:, :-1])[:, first - 1 :]
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), tokens[:, first:].flatten(), reduction="none"
    )
    return losses.view(len(tokens), -1)


def train(
    model: Transformer,
    batches: Iterable[torch.Tensor],
    *,
    learning_rate: float,
    steps: int,
    first: int = 1,
    warmup: int = 50,
    final: float = 0.1,
) -> Iterator[float]:
    """Train with AdamW, and yield the mean loss of each batch after its step.

    The learning rate rises linearly over `warmup` steps and falls along a cosine to the share
    `final` of its peak. On a GPU the arithmetic is in bfloat16. The caller sees every step, so that
    it can measure the model in between.

    Parameters
    ----------
    model : Transformer
    batches : iterable of torch.Tensor
        int64 [B, L], as `token_losses` takes them; at least `steps` of them.
    learning_rate : float
        The peak.
    steps : int
        Length of the schedule; training stops there.
    first : int
        The first position whose prediction counts.

    Raises
    ------
    ValueError
        For a learning rate, a number of steps or a warm-up that is not positive, before any step,
        and for fewer batches than steps.
    FloatingPointError
        When a loss is not finite; the weights are those before that step.
    """
    for name, value in (("learning_rate", learning_rate), ("steps", steps), ("warmup", warmup)):
        if not value > 0:
            raise ValueError(f"{name} is {value!r}; accepted is a positive number")
    return _train(model, iter(batches), learning_rate, int(steps), first, warmup, final)


def _train(model, batches, learning_rate, steps, first, warmup, final) -> Iterator[float]:
    on_gpu = model.device.type == "cuda"
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    for step in range(steps):
        tokens = next(batches, None)
        if tokens is None:
            raise ValueError(f"batches ended after {step}; accepted are at least {steps} of them")
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        rate = learning_rate * min(1, (step + 1) / warmup) * (final + (1 - final) * cosine)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(model.device.type, torch.bfloat16, enabled=on_gpu):
            loss = token_losses(model, tokens, first).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {step} is {loss.item()}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        yield loss.item()


def next_token_law(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return softmax(logits / temperature), float32 [..., vocabulary]; 0 is the argmax alone.

    Raises
    ------
    ValueError
        Unless temperature is a finite non-negative number.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r}; accepted is a finite number from 0 up")
    if temperature == 0:
        return functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    # The largest logit becomes zero before the division, so that nothing overflows.
    below = (logits - logits.amax(-1, keepdim=True)).double() / temperature
    return torch.softmax(below, -1).float()


def draw_tokens(law: torch.Tensor, generator: torch.Generator, top_p: float = 1.0) -> torch.Tensor:
    """Draw one token from each law, or from its nucleus, int64 [B].

    The nucleus holds the most probable tokens, as few as have the mass `top_p`. In other words: a
    token belongs to it if all tokens that are more probable hold less than `top_p`. To draw from it
    is to draw from the whole law, again and again until the token belongs; that needs no sorting,
    which would cost more than the model. Tokens of equal probability belong together.

    Parameters
    ----------
    law : torch.Tensor
        Probabilities [B, vocabulary]; rows need not be normalised.
    generator : torch.Generator
        On the device of the law.
    top_p : float

    Raises
    ------
    ValueError
        Unless top_p is above 0 and at most 1, and every law has a positive finite sum.
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p!r}; accepted is a number above 0, at most 1")
    # In single precision a running sum forgets rare tokens.
    heights = law.double().cumsum(-1)
    if not ((heights[:, -1] > 0) & (heights[:, -1] < math.inf)).all():
        raise ValueError("law has a row without a positive finite sum; accepted are probabilities")
    tokens = torch.empty(len(law), dtype=torch.int64, device=law.device)
    open_rows = torch.arange(len(law), device=law.device)
    while len(open_rows):
        laws, steps = law[open_rows], heights[open_rows]
        level = torch.rand(
            (len(open_rows), 1), dtype=torch.float64, device=law.device, generator=generator
        )
        drawn = torch.searchsorted(steps, level * steps[:, -1:], right=True)
        # The product may round up to the total, which no step exceeds.
        drawn = drawn.clamp_(max=law.shape[1] - 1)
        tokens[open_rows] = drawn[:, 0]
        if top_p == 1:
            break
        more_probable = (laws * (laws > laws.gather(1, drawn))).sum(1)
        open_rows = open_rows[more_probable >= top_p * steps[:, -1]]
    return tokens


@torch.no_grad()
def generate(
    model: Transformer,
    prompt: torch.Tensor,
    length: int,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> torch.Tensor:
    """Return `length` tokens that the model writes behind each prompt, int64 [B, length].

    Parameters
    ----------
    model : Transformer
    prompt : torch.Tensor
        int64 [B, P] with P at least 1 and P + length - 1 at most the context.
    length : int
    generator : torch.Generator
        On the device of the model.
    temperature, top_p : float
        The decoding rule, see `next_token_law` and `draw_tokens`.

    Notes
    -----
    Keys and values of the past are kept, so a token costs one pass over one position.
    """
    length = checked_integer(length, "length", 1)
    if prompt.shape[1] + length - 1 > model.shape.context:
        raise ValueError(
            f"length is {length} behind a prompt of {prompt.shape[1]}; accepted is a sum of at "
            f"most {model.shape.context + 1}, the context and one token more"
        )
    written, past, latest = [], None, prompt
    for _ in range(length):
        logits, past = model.continue_from(latest, past)
        law = next_token_law(logits[:, -1], temperature)
        latest = draw_tokens(law, generator, top_p)[:, None]
        written.append(latest)
    return torch.cat(written, 1)
