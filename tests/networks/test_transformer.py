"""The small transformer: what it may see, its cache, its training and the rules of decoding."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from kempe_nb.networks import transformer
from kempe_nb.networks.transformer import Shape, Transformer

TINY = Shape(vocabulary=7, context=6, width=12, layers=2, heads=3)

shapes = st.builds(
    lambda vocabulary, context, heads, each, layers: Shape(
        vocabulary, context, heads * each, layers, heads
    ),
    st.integers(2, 8),
    st.integers(2, 7),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
)
few = settings(max_examples=20, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(shape=TINY, seed=0):
    """Return a model in double precision, so that rounding decides no comparison."""
    return Transformer(shape, seeded(seed)).double()


def draw_sequences(shape, count, length, seed=1):
    return torch.randint(0, shape.vocabulary, (count, length), generator=seeded(seed))


# The model


@given(shapes, st.data())
@few
def test_a_later_token_never_changes_earlier_logits(shape, data):
    model, tokens = make(shape), draw_sequences(shape, 3, shape.context)
    position = data.draw(st.integers(0, shape.context - 1))
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % shape.vocabulary
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-13)


@pytest.mark.parametrize("position", range(TINY.context))
def test_a_token_changes_the_logits_at_its_place_and_at_all_later_ones(position):
    model, tokens = make(), draw_sequences(TINY, 3, TINY.context)
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % TINY.vocabulary
    moved = (model(changed) - model(tokens)).abs().amax(-1)
    # The weights are of order 0.1, so what arrives is far above rounding (1e-15).
    assert (moved[:, position:] > 1e-6).all()


@given(shapes, st.data())
@few
def test_token_by_token_the_kept_keys_and_values_give_the_logits_of_one_pass(shape, data):
    model, tokens = make(shape), draw_sequences(shape, 3, shape.context)
    start = data.draw(st.integers(1, shape.context))
    logits, past = model.continue_from(tokens[:, :start], None)
    pieces = [logits]
    for position in range(start, shape.context):
        logits, past = model.continue_from(tokens[:, position : position + 1], past)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), rtol=0, atol=1e-12)
    each = shape.width // shape.heads
    for key, value in past:
        assert key.shape == value.shape == (3, shape.heads, shape.context, each)


def test_the_cache_agrees_in_single_precision_too():
    model, tokens = Transformer(TINY, seeded()), draw_sequences(TINY, 5, TINY.context)
    past, pieces = None, []
    for token in tokens.split(1, 1):
        logits, past = model.continue_from(token, past)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), rtol=0, atol=1e-5)


def test_several_tokens_behind_a_past_are_refused_or_causal():
    model, tokens = make(), draw_sequences(TINY, 3, TINY.context)
    _, past = model.continue_from(tokens[:, :2], None)
    try:
        logits, _ = model.continue_from(tokens[:, 2:], past)
    except ValueError:
        return
    torch.testing.assert_close(logits, model(tokens)[:, 2:], rtol=0, atol=1e-12)


def test_sequences_of_a_batch_do_not_see_each_other():
    model, tokens = make(), draw_sequences(TINY, 4, TINY.context)
    alone = torch.cat([model(row[None]) for row in tokens])
    torch.testing.assert_close(model(tokens), alone, rtol=0, atol=1e-12)


@given(shapes)
@few
def test_the_number_of_parameters_has_a_closed_form(shape):
    width, rows = shape.width, 2 * shape.vocabulary + shape.context
    # A layer: 12 width^2 in four maps, 9 width in their biases, 4 width in two norms.
    expected = rows * width + shape.layers * (12 * width**2 + 13 * width) + 2 * width
    assert sum(weights.numel() for weights in make(shape).parameters()) == expected


def test_initial_weights_depend_on_the_seed_of_the_generator_alone():
    states = []
    for elsewhere, seed in ((1, 5), (2, 5), (2, 6)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(elsewhere)
            states.append(Transformer(TINY, seeded(seed)).state_dict())
    one, same, other = states
    for name, weights in one.items():
        assert torch.equal(weights, same[name]), name
        constant = name.endswith("bias") or "norm" in name
        assert torch.equal(weights, other[name]) == constant, name


def test_initial_weights_have_the_documented_spread():
    shape = Shape(vocabulary=40, context=30, width=32, layers=3, heads=4)
    state = Transformer(shape, seeded()).state_dict()
    spreads = {"embed.weight": 0.02, "positions": 0.02, "to_logits.weight": 0.5 / 32**0.5}
    for layer in range(3):
        within = f"layers.{layer}."
        spreads[within + "query_key_value.weight"] = 0.5 / 32**0.5
        spreads[within + "mix_heads.weight"] = 0.5 / 32**0.5 / 6**0.5
        spreads[within + "mlp.0.weight"] = 0.5 / 32**0.5
        spreads[within + "mlp.2.weight"] = 0.5 / 128**0.5 / 6**0.5
    for name, weights in state.items():
        if name in spreads:
            scaled = weights.double() / spreads[name]
            count = scaled.numel()
            assert abs(scaled.sum()) < 4 * count**0.5, name
            assert abs((scaled**2).sum() - count) < 4 * (2 * count) ** 0.5, name
        else:
            fixed = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            assert (weights == fixed).all(), name


# Losses and training


@given(shapes, st.data())
@few
def test_token_losses_are_the_cross_entropy_of_what_follows(shape, data):
    model, tokens = make(shape), draw_sequences(shape, 3, shape.context + 1)
    first = data.draw(st.integers(1, shape.context))
    losses = transformer.token_losses(model, tokens, first)
    logits = model(tokens[:, :-1]).detach().numpy()
    assert losses.shape == (3, shape.context + 1 - first)
    for row, position in itertools.product(range(3), range(first, shape.context + 1)):
        scores = logits[row, position - 1]
        by_hand = np.log(np.exp(scores).sum()) - scores[tokens[row, position]]
        # The loss is in single precision: 2^-24 of numbers of order one, added a few times.
        assert abs(losses[row, position - first].item() - by_hand) < 1e-6 * max(1, by_hand)


@pytest.mark.parametrize("vocabulary", [2, 7, 60])
def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_vocabulary(vocabulary):
    shape = Shape(vocabulary, 6, 12, 1, 3)
    model = make(shape)
    torch.nn.init.zeros_(model.to_logits.weight)
    losses = transformer.token_losses(model, draw_sequences(shape, 4, 7))
    np.testing.assert_allclose(losses.detach(), math.log(vocabulary), rtol=1e-6)


def test_first_counts_only_the_later_positions():
    model, tokens = make(), draw_sequences(TINY, 4, 7)
    every = transformer.token_losses(model, tokens)
    for first in range(1, 7):
        assert torch.equal(transformer.token_losses(model, tokens, first), every[:, first - 1 :])


def test_training_counts_only_the_later_positions():
    tokens = draw_sequences(TINY, 4, 7)
    every = transformer.token_losses(make(), tokens)
    losses = transformer.train(make(), [tokens], learning_rate=1e-3, steps=1, first=5)
    counted = next(losses)
    assert counted == pytest.approx(every[:, 4:].mean().item(), rel=1e-6)
    assert counted != pytest.approx(every.mean().item(), rel=1e-4)


def test_the_loss_falls_on_a_sequence_that_repeats():
    shape = Shape(vocabulary=4, context=8, width=16, layers=1, heads=2)
    batch = (torch.arange(9) + torch.arange(4)[:, None]) % 4
    losses = list(
        transformer.train(
            Transformer(shape, seeded()),
            itertools.repeat(batch),
            learning_rate=1e-2,
            steps=60,
            warmup=5,
        )
    )
    # All four tokens are equally frequent: who ignores the context loses log 4 and no less.
    assert losses[0] > 0.8 * math.log(4)
    assert losses[-1] < 0.1 * math.log(4)


def test_training_stops_after_the_number_of_steps_and_takes_no_more_batches():
    batches = itertools.repeat(draw_sequences(TINY, 2, 5), 10)
    losses = list(transformer.train(make(), batches, learning_rate=1e-3, steps=4))
    assert len(losses) == 4 and all(type(loss) is float for loss in losses)
    assert len(list(batches)) == 6


def test_a_loss_is_that_of_the_batch_before_its_step_and_weights_move_after_it():
    model, batch = make(), draw_sequences(TINY, 4, 7)
    losses = transformer.train(model, itertools.repeat(batch), learning_rate=1e-3, steps=3)
    for _ in range(3):
        expected = transformer.token_losses(model, batch).mean().item()
        before = model.to_logits.weight.detach().clone()
        assert next(losses) == pytest.approx(expected, rel=1e-6)
        assert not torch.equal(model.to_logits.weight, before)


def test_the_same_seeds_give_the_same_losses_and_other_seeds_do_not():
    def losses_of(seed_model, seed_data):
        generator = seeded(seed_data)
        batches = (torch.randint(0, 7, (4, 7), generator=generator) for _ in range(5))
        model = Transformer(TINY, seeded(seed_model))
        return list(transformer.train(model, batches, learning_rate=1e-2, steps=5))

    assert losses_of(0, 0) == losses_of(0, 0)
    assert losses_of(0, 0) != losses_of(1, 0) != losses_of(1, 1)


@pytest.mark.parametrize(("warmup", "final"), [(5, 0.1), (1, 0.0), (12, 1.0)])
def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine(warmup, final):
    # A token that never occurs has no gradient, so its embedding only decays, by a factor of
    # 1 - 0.01 rate a step: the rate can be read from outside.
    peak, steps, model = 1e-2, 20, make()
    batch = draw_sequences(Shape(6, 6, 1, 1, 1), 4, 7)
    assert batch.max() < 6
    sizes = [model.embed.weight[6].norm().item()]
    for _ in transformer.train(
        model,
        itertools.repeat(batch),
        learning_rate=peak,
        steps=steps,
        warmup=warmup,
        final=final,
    ):
        sizes.append(model.embed.weight[6].norm().item())
    rates = (1 - np.divide(sizes[1:], sizes[:-1])) / 0.01
    done = np.arange(steps)
    fall = final + (1 - final) * (1 + np.cos(np.pi * done / steps)) / 2
    rise = np.minimum((done + 1) / warmup, 1)
    # Double precision leaves 1e-16 of a size, that is 1e-12 of a rate of 1e-2.
    np.testing.assert_allclose(rates, peak * rise * fall, rtol=0, atol=1e-11)


def test_too_few_batches_are_refused_where_they_end():
    losses = transformer.train(make(), [draw_sequences(TINY, 2, 5)] * 2, learning_rate=1, steps=3)
    assert len(list(itertools.islice(losses, 2))) == 2
    with pytest.raises(ValueError, match="batches ended after 2; accepted are at least 3 of them"):
        next(losses)


def test_a_loss_that_is_not_finite_stops_the_training_and_leaves_the_weights():
    model, batch = Transformer(TINY, seeded()), draw_sequences(TINY, 2, 5)
    losses = transformer.train(model, itertools.repeat(batch), learning_rate=1e-3, steps=9)
    next(losses)
    with torch.no_grad():
        # Finite weights whose logits overflow.
        model.to_logits.weight.fill_(3e38)
        model.norm.bias.fill_(10)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
        next(losses)
    for name, weights in model.state_dict().items():
        assert torch.isfinite(weights).all() and torch.equal(weights, before[name]), name


# The law of the next token


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=9), st.floats(0.1, 10))
@few
def test_the_law_is_the_softmax_of_the_logits_over_the_temperature(logits, temperature):
    logits = torch.tensor([logits, logits[::-1]])
    law = transformer.next_token_law(logits, temperature)
    assert law.dtype == torch.float32
    expected = torch.softmax(logits.double() / temperature, -1)
    # The exponents are at most 600, known to 2^-24 of that.
    np.testing.assert_allclose(law, expected, rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(law.sum(-1), 1, rtol=1e-6)


def test_temperature_one_is_the_default():
    logits = torch.randn(3, 5, generator=seeded())
    torch.testing.assert_close(transformer.next_token_law(logits), torch.softmax(logits, -1))


def test_temperature_zero_takes_the_most_probable_token_alone():
    logits = torch.randn(4, 3, 9, generator=seeded())
    law = transformer.next_token_law(logits, 0)
    assert law.shape == logits.shape and law.dtype == torch.float32
    assert torch.equal(law.argmax(-1), logits.argmax(-1))
    assert (law.sum(-1) == 1).all() and (law.amax(-1) == 1).all()


def test_the_law_tends_to_the_argmax_when_cold_and_to_the_uniform_law_when_hot():
    logits = torch.tensor([[0.3, -1.0, 0.5, 0.1]])
    cold = transformer.next_token_law(logits, 1e-3)
    # The runner-up is 0.2 behind: e^-200 of the mass.
    np.testing.assert_allclose(cold, transformer.next_token_law(logits, 0), atol=1e-30)
    hot = transformer.next_token_law(logits, 1e4)
    # Relative deviations from 1/4 are at most the range of the logits over the temperature.
    np.testing.assert_allclose(hot, 0.25, rtol=1.5e-4)
    shares = [transformer.next_token_law(logits, t)[0, 2].item() for t in (10, 2, 1, 0.5, 0.1)]
    assert shares == sorted(shares)


@pytest.mark.parametrize("temperature", [1e-39, 1e-60, 5e-324])
def test_an_accepted_temperature_never_gives_a_law_of_nan(temperature):
    logits = torch.tensor([[1.0, 2.0, -3.0]])
    law = transformer.next_token_law(logits, temperature)
    assert torch.equal(law, transformer.next_token_law(logits, 0))


# Drawing


def nucleus_of(weights, top_p):
    """Return which tokens belong: sort, add up, and keep equals together; exact for integers."""
    order = np.argsort(-weights, kind="stable")
    ahead = np.concatenate([[0], np.cumsum(weights[order])[:-1]])
    belongs = np.zeros(len(weights), bool)
    for place, token in enumerate(order):
        # Of equals, the one that comes first decides.
        first = np.flatnonzero(weights[order] == weights[token])[0]
        belongs[token] = place == 0 or ahead[first] < top_p * weights.sum()
    return belongs & (weights > 0)


def draw_many(law, count, seed, top_p=1.0):
    laws = torch.as_tensor(law)[None].expand(count, -1)
    drawn = transformer.draw_tokens(laws, seeded(seed), top_p)
    assert drawn.shape == (count,) and drawn.dtype == torch.int64
    return np.bincount(drawn, minlength=len(law))


def chi_square(counts, law):
    assert (counts[law == 0] == 0).all()
    seen = counts[law > 0]
    return stats.chisquare(seen, seen.sum() * law[law > 0] / law.sum()).pvalue


LAWS = {
    "flat": np.full(8, 1 / 8),
    "zipf": np.arange(1, 31.0) ** -1.5 / (np.arange(1, 31.0) ** -1.5).sum(),
    "with holes": np.array([0, 0.3, 0, 0.25, 0.2, 0.15, 0.1, 0]),
    "not normalised": np.array([3.0, 1.0, 7.0, 2.0]),
    "one token": np.array([0.0, 2.0, 0.0]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAWS)
def test_without_a_nucleus_tokens_follow_the_law(name, dtype):
    law = LAWS[name]
    counts = draw_many(torch.tensor(law, dtype=dtype), 40_000, seed=3)
    if (law > 0).sum() == 1:
        assert counts[law > 0] == 40_000
    else:
        assert chi_square(counts, law) > 1e-3


@pytest.mark.parametrize("top_p", [0.2, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("name", LAWS)
def test_from_the_nucleus_tokens_follow_the_law_renormalised(name, top_p):
    law = LAWS[name]
    kept = np.where(nucleus_of(law, top_p), law, 0)
    counts = draw_many(torch.tensor(law), 40_000, seed=4, top_p=top_p)
    if (kept > 0).sum() == 1:
        assert counts[kept > 0] == 40_000
    else:
        assert chi_square(counts, kept) > 1e-3


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any),
    st.integers(1, 15),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=40, deadline=None)
def test_exactly_the_tokens_of_the_nucleus_are_drawn(weights, sixteenths, dtype):
    # Integer weights and a top_p in sixteenths: all sums are exact, on the boundary as well.
    weights, top_p = np.array(weights), sixteenths / 16
    counts = draw_many(torch.tensor(weights, dtype=dtype), 4_000, seed=5, top_p=top_p)
    # The rarest token has at least 1/120 of the mass: it stays away with probability e^-33.
    np.testing.assert_array_equal(counts > 0, nucleus_of(weights, top_p))


@pytest.mark.parametrize(
    ("weights", "top_p", "belong"),
    [
        ([5, 3, 2], 1e-9, [0]),
        ([5, 3, 2], 0.5, [0]),
        ([5, 3, 2], 0.5 + 1e-9, [0, 1]),
        ([5, 3, 2], 1 - 1e-9, [0, 1, 2]),
        ([1, 2, 5], 0.5, [2]),
        ([1, 1, 1, 1], 0.25, [0, 1, 2, 3]),
        ([4, 2, 2], 0.625, [0, 1, 2]),
        ([0, 8, 0], 0.5, [1]),
    ],
)
def test_nuclei_by_hand(weights, top_p, belong):
    weights = np.array(weights, float)
    np.testing.assert_array_equal(np.flatnonzero(nucleus_of(weights, top_p)), belong)
    drawn = draw_many(torch.tensor(weights), 2_000, seed=6, top_p=top_p)
    np.testing.assert_array_equal(np.flatnonzero(drawn), belong)


def test_every_row_is_drawn_from_its_own_nucleus():
    weights = torch.randint(0, 30, (500, 12), generator=seeded(7)).double() + torch.eye(500, 12)
    drawn = transformer.draw_tokens(weights, seeded(8), 0.5)
    for row, token in zip(weights.numpy(), drawn, strict=True):
        assert nucleus_of(row, 0.5)[token]


def draw_at(law, levels):
    """Return what is drawn from a law where the random numbers are those given."""
    numbers = torch.tensor(levels, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda size, **_: numbers.view(size))
        return transformer.draw_tokens(law[None].expand(len(levels), -1), seeded()).tolist()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30).filter(any))
@settings(max_examples=80, deadline=None)
def test_no_random_number_draws_a_token_of_probability_zero(law):
    law = torch.tensor([0.0, *law, 0.0, 0.0])
    possible = np.flatnonzero(law)
    # The smallest random number and the largest.
    low, high = draw_at(law, [0.0, 1 - 2.0**-53])
    assert low == possible[0] and high in possible


def test_rare_tokens_behind_a_frequent_one_keep_their_probabilities():
    # 2^20 tokens of 2^-26 each. Near one single precision has steps of 2^-24, so that a running sum
    # would give the places of four tokens to one of them.
    law = torch.full((2**20 + 1,), 2.0**-26)
    law[0] = 1 - 2.0**-6
    rare = [1, 2, 3, 4, 77_777, 2**20]
    assert draw_at(law, [1 - 2.0**-6 + (token - 0.5) * 2.0**-26 for token in rare]) == rare


# Writing


@given(shapes, st.data())
@few
def test_at_temperature_zero_writing_is_greedy_decoding_by_full_passes(shape, data):
    length = data.draw(st.integers(1, shape.context))
    read = data.draw(st.integers(1, shape.context + 1 - length))
    model, prompt = make(shape), draw_sequences(shape, 4, read)
    text = prompt
    for _ in range(length):
        text = torch.cat([text, model(text)[:, -1].argmax(-1, keepdim=True)], 1)
    written = transformer.generate(model, prompt, length, seeded(), temperature=0.0)
    assert written.shape == (4, length) and written.dtype == torch.int64
    assert torch.equal(written, text[:, read:])


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (2.0, 0.6)])
def test_writing_draws_from_the_laws_of_full_passes(temperature, top_p):
    model, prompt, generator = make(), draw_sequences(TINY, 50, 2), seeded(9)
    text = prompt
    for _ in range(5):
        law = transformer.next_token_law(model(text)[:, -1], temperature)
        text = torch.cat([text, transformer.draw_tokens(law, generator, top_p)[:, None]], 1)
    rule = {"temperature": temperature, "top_p": top_p}
    written = transformer.generate(model, prompt, 5, seeded(9), **rule)
    assert torch.equal(written, text[:, 2:])


def test_writing_depends_on_the_seed_alone():
    model, prompt = make(), draw_sequences(TINY, 20, 2)
    one, same, other = (transformer.generate(model, prompt, 5, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert not one.requires_grad and ((one >= 0) & (one < TINY.vocabulary)).all()


def test_frequencies_of_written_tokens_follow_the_model():
    model, prompt = make(), draw_sequences(TINY, 1, 3).expand(20_000, -1)
    law = torch.softmax(model(prompt[:1])[0, -1], -1).detach().numpy()
    written = transformer.generate(model, prompt, 1, seeded(2))
    assert chi_square(np.bincount(written[:, 0], minlength=7), law) > 1e-3


# Refusals


@pytest.mark.parametrize(
    "name, value",
    [
        ("vocabulary", 0),
        ("context", -1),
        ("width", 2.0),
        ("layers", True),
        ("heads", "2"),
        ("heads", None),
    ],
)
def test_a_bad_size_is_refused_by_name(name, value):
    sizes = {"vocabulary": 7, "context": 6, "width": 12, "layers": 2, "heads": 3}
    with pytest.raises(ValueError, match=f"{name} is {value!r}; accepted is an integer from 1 up"):
        Shape(**{**sizes, name: value})


def train_with(**changed):
    return transformer.train(make(), [], **{"learning_rate": 1e-3, "steps": 1, **changed})


TOKENS = torch.zeros(2, 5, dtype=torch.int64)
FULL = torch.zeros(2, TINY.context, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Shape(7, 6, 10, 2, 3), "width is 10 with 3 heads"),
        (lambda: make()(TOKENS[:, :0]), "tokens end at position 0; accepted are 1 to 6"),
        (lambda: make()(TOKENS.repeat(1, 2)), "tokens end at position 10; accepted are 1 to 6"),
        (
            lambda: make().continue_from(TOKENS[:, :1], make().continue_from(FULL, None)[1]),
            "tokens end at position 7; accepted are 1 to 6, the context",
        ),
        (lambda: transformer.token_losses(make(), TOKENS, 0), "first is 0"),
        (lambda: transformer.token_losses(make(), TOKENS, 5), "first is 5"),
        (lambda: transformer.token_losses(make(), TOKENS[:, :1]), "first is 1"),
        (lambda: transformer.token_losses(make(), TOKENS.repeat(1, 2)), "position 9"),
        (lambda: train_with(learning_rate=0), "learning_rate is 0"),
        (lambda: train_with(learning_rate=math.nan), "learning_rate is nan"),
        (lambda: train_with(steps=0), "steps is 0"),
        (lambda: train_with(steps=-5), "steps is -5"),
        (lambda: train_with(warmup=0), "warmup is 0"),
        (lambda: transformer.next_token_law(torch.zeros(1, 3), -0.1), "temperature is -0.1"),
        (lambda: transformer.next_token_law(torch.zeros(1, 3), math.inf), "temperature is inf"),
        (lambda: transformer.next_token_law(torch.zeros(1, 3), math.nan), "temperature is nan"),
        (lambda: transformer.draw_tokens(torch.ones(1, 3), seeded(), 0), "top_p is 0"),
        (lambda: transformer.draw_tokens(torch.ones(1, 3), seeded(), 1.1), "top_p is 1.1"),
        (lambda: transformer.draw_tokens(torch.ones(1, 3), seeded(), math.nan), "top_p is nan"),
        (lambda: transformer.generate(make(), TOKENS, 0, seeded()), "length is 0"),
        (lambda: transformer.generate(make(), TOKENS, 1.0, seeded()), "length is 1.0"),
        (
            lambda: transformer.generate(make(), TOKENS, 3, seeded()),
            "length is 3 behind a prompt of 5; accepted is a sum of at most 7",
        ),
        (lambda: transformer.generate(make(), TOKENS[:, :0], 2, seeded()), "position 0"),
        (
            lambda: transformer.generate(make(), TOKENS, 2, seeded(), temperature=-1),
            "temperature is -1",
        ),
        (lambda: transformer.generate(make(), TOKENS, 2, seeded(), top_p=-1), "top_p is -1"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bad", [[0.0, 0.0], [float("nan"), 0.5], [float("inf"), 0.5]])
@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_a_law_that_is_none_is_refused_and_never_drawn_from(bad, top_p):
    law = torch.tensor([[0.5, 0.5], bad])
    with pytest.raises(ValueError, match="law has a row"):
        transformer.draw_tokens(law, torch.Generator().manual_seed(0), top_p)


def test_building_a_model_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    make()
    assert torch.equal(torch.random.get_rng_state(), before)
