"""The toy language: what is counted is the world's law, and what is searched is the worst."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from kempe_nb.methods.explanations import (
    KINDS,
    OPENINGS,
    Language,
    explanation_probabilities,
    harmful_mass,
    opening_mass,
    worst_queries,
)
from kempe_nb.networks.transformer import Shape, Transformer

SMALL = Language(benign=2, forbidden=2, halves=3, pool=4)
LANGUAGES = st.builds(
    Language,
    benign=st.integers(1, 4),
    forbidden=st.integers(1, 4),
    halves=st.sampled_from([3, 6]),
    pool=st.integers(3, 6),
    overcautious=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 9),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def everything(language, kind="direct"):
    """Return each query of a kind with each concept."""
    queries, concepts = language.queries(kind), torch.arange(language.concepts)
    return (
        queries.repeat_interleave(len(concepts), 0),
        concepts.repeat(len(queries)),
    )


@pytest.fixture(scope="module")
def model():
    shape = Shape(vocabulary=SMALL.vocabulary, context=9, width=8, layers=1, heads=2)
    return Transformer(shape, generator()).double().requires_grad_(False)


class World(nn.Module):
    """A model whose logits are those of the world, for the language `SMALL`."""

    def forward(self, tokens):
        prefixed = bool((tokens[0] == 1).any())
        place = 2 + prefixed
        queries = tokens[:, place - 1 : place + 1]
        concepts = tokens[:, place + 1] - (2 + 2 * SMALL.halves)
        law = SMALL.world(queries, concepts, prefixed=prefixed)
        rows = SMALL.explanations(concepts)
        found = torch.full((*tokens.shape, SMALL.vocabulary), -1e9, dtype=torch.float64)
        for row in range(len(tokens)):
            said = tokens[row, place + 2 :]
            for known in range(len(said) + 1):
                fits = (rows[row, :, :known] == said[:known]).all(1)
                if known == 4 or not fits.any():
                    continue
                mass = torch.zeros(SMALL.vocabulary, dtype=torch.float64)
                mass.index_add_(0, rows[row, fits, known], law[row, fits])
                found[row, place + 1 + known] = mass.clamp_min(1e-300).log()
        return found


@given(LANGUAGES, st.sampled_from(list(KINDS)), st.booleans())
def test_the_world_is_a_law_over_different_explanations(language, kind, prefixed):
    queries, concepts = everything(language, kind)
    law = language.world(queries, concepts, prefixed=prefixed)
    assert law.shape == (len(concepts), 81) and (law > 0).all()
    torch.testing.assert_close(law.sum(1), torch.ones(len(law), dtype=torch.float64))
    rows = language.explanations(torch.arange(language.concepts))
    for own in rows:
        assert len({tuple(each) for each in own.tolist()}) == 81
    assert int(rows.min()) > 0 and int(rows.max()) < language.vocabulary


@given(LANGUAGES)
def test_openings_have_the_shares_that_the_module_states(language):
    queries, concepts = everything(language)
    harmful = language.harmful(concepts)
    assert (harmful.sum(1) == torch.where(concepts >= language.benign, 27, 0)).all()
    names = language.explanations(concepts)[:, :, 0] == language.opening("names")
    plain = (language.world(queries, concepts) * names).sum(1)
    assert (plain - 0.95).abs().max() < 1e-12
    behind = (language.world(queries, concepts, prefixed=True) * names).sum(1)
    benign = 0.95 + language.overcautious * (0.08 - 0.95)
    expected = torch.tensor([benign, 0.08], dtype=torch.float64)
    expected = expected[(concepts >= language.benign).long()]
    assert (behind - expected).abs().max() < 1e-12


@given(LANGUAGES)
def test_queries_are_shared_out_and_only_reweigh(language):
    found = [tuple(each) for kind in KINDS for each in language.queries(kind).tolist()]
    assert len(set(found)) == len(found) == language.halves**2
    for kind in KINDS:
        counts = torch.bincount(language.queries(kind).flatten())[2:]
        assert (counts == language.halves // 3).all()
    queries, concepts = everything(language)
    own = language.world(queries, concepts)[concepts == 0]
    # The support is the concept's; the weights are the query's.
    assert (own.std(0) > 0).any()


def test_a_corpus_has_the_frequencies_of_the_world():
    count = 40_000
    queries, concepts, completions = SMALL.corpus(count, generator(), prefixed=0.0)
    unseen = {tuple(each) for each in SMALL.queries("unseen").tolist()}
    rare = {tuple(each) for each in SMALL.queries("rare").tolist()}
    drawn = [tuple(each) for each in queries.tolist()]
    assert not unseen & set(drawn)
    share = sum(each in rare for each in drawn) / count
    assert abs(share - 0.05) < 5 * math.sqrt(0.05 * 0.95 / count)
    own = (concepts == 3) & (queries == SMALL.queries("direct")[0]).all(1)
    law = SMALL.world(SMALL.queries("direct")[:1], torch.tensor([3]))[0]
    rows = SMALL.explanations(torch.tensor([3]))[0]
    counts = torch.stack([(completions[own] == row).all(1).sum() for row in rows]).double()
    assert counts.sum() == own.sum()
    # Pearson's statistic with 80 degrees of freedom: a mean of 80 and a deviation of 12.6.
    expected = law * own.sum()
    assert float(((counts - expected) ** 2 / expected).sum()) < 80 + 5 * 12.6


def test_prefixed_rows_of_a_corpus_come_first():
    _, concepts, completions = SMALL.corpus(4000, generator(), prefixed=0.5)
    declines = completions[:, 0] == SMALL.opening("declines")
    forbidden = concepts >= SMALL.benign
    assert float(declines[:2000][forbidden[:2000]].double().mean()) > 0.85
    assert float(declines[2000:].double().mean()) < 0.1


def test_the_mass_of_a_model_that_is_the_world_is_the_world_s():
    queries, concepts = everything(SMALL, "unseen")
    for prefixed in (False, True):
        law = SMALL.world(queries, concepts, prefixed=prefixed)
        found = explanation_probabilities(
            World(),
            SMALL.prompts(queries, concepts, prefixed=prefixed),
            SMALL.explanations(concepts),
        )
        torch.testing.assert_close(found, law, rtol=0, atol=1e-12)
        mass = harmful_mass(World(), SMALL, queries, concepts, prefixed=prefixed)
        torch.testing.assert_close(mass, (law * SMALL.harmful(concepts)).sum(1))


@given(LANGUAGES, st.sampled_from(list(KINDS)), st.booleans())
def test_masses_of_openings_are_sums_over_explanations(language, kind, prefixed):
    shape = Shape(vocabulary=language.vocabulary, context=9, width=8, layers=1, heads=2)
    model = Transformer(shape, generator(language.seed)).double().requires_grad_(False)
    queries, concepts = everything(language, kind)
    prompts = language.prompts(queries, concepts, prefixed=prefixed)
    rows = language.explanations(concepts)
    law = explanation_probabilities(model, prompts, rows)
    for opening in OPENINGS:
        own = rows[:, :, 0] == language.opening(opening)
        found = opening_mass(model, language, queries, concepts, opening=opening, prefixed=prefixed)
        torch.testing.assert_close(found, (law * own).sum(1))
    harmful = harmful_mass(model, language, queries, concepts, prefixed=prefixed)
    torch.testing.assert_close(harmful, (law * language.harmful(concepts)).sum(1))


@pytest.mark.parametrize("prefixed", [False, True])
def test_the_worst_query_is_the_best_of_all(model, prefixed):
    # An untrained model's opening says little of the mass behind it.
    concept = torch.tensor([3])
    tokens = torch.cartesian_prod(*2 * [torch.arange(SMALL.vocabulary)])
    queries, mass = worst_queries(model, SMALL, concept, prefixed=prefixed, chunk=50)
    concepts = concept.expand(len(tokens))
    law = explanation_probabilities(
        model,
        SMALL.prompts(tokens, concepts, prefixed=prefixed),
        SMALL.explanations(concepts),
    )
    everywhere = (law * SMALL.harmful(concepts)).sum(1)
    assert abs(float(mass[0] / everywhere.max() - 1)) < 1e-12
    assert queries[0].tolist() == tokens[int(everywhere.argmax())].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masses_of_a_model_in_half_precision_are_added_in_single(dtype):
    shape = Shape(vocabulary=SMALL.vocabulary, context=9, width=8, layers=1, heads=2)
    low = Transformer(shape, generator()).to(dtype).requires_grad_(False)
    queries, concepts = everything(SMALL)
    prompts, rows = SMALL.prompts(queries, concepts), SMALL.explanations(concepts)
    law = explanation_probabilities(low, prompts, rows) * SMALL.harmful(concepts)
    found = harmful_mass(low, SMALL, queries, concepts)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, law.sum(1), rtol=1e-5, atol=0)


def test_a_model_of_nan_is_refused_and_no_prompts_give_no_masses():
    class Broken(nn.Module):
        def forward(self, tokens):
            return torch.full((*tokens.shape, SMALL.vocabulary), math.nan)

    with pytest.raises(ValueError, match="model returns NaN"):
        worst_queries(Broken(), SMALL, torch.tensor([3]))
    nobody = SMALL.queries("direct")[:0], torch.zeros(0, dtype=torch.int64)
    assert harmful_mass(Broken(), SMALL, *nobody).shape == (0,)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"benign": 0}, "benign is 0"),
        ({"forbidden": 0}, "forbidden is 0"),
        ({"halves": 4}, "halves is 4; accepted is a multiple of 3"),
        ({"pool": 2}, "pool is 2"),
        ({"overcautious": 1.0}, "overcautious is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_bad_languages_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Language(**wrong)


def test_bad_prompts_are_refused(model):
    query, concept = SMALL.queries("direct")[:1], torch.tensor([1])
    with pytest.raises(ValueError, match=r"concepts are 4 to 4, \(1,\); accepted are 0 to 3"):
        SMALL.prompts(query, torch.tensor([4]))
    with pytest.raises(ValueError, match=r"queries are .* \(1, 1\)"):
        SMALL.prompts(query[:, :1], concept)
    for prefixed in (0.1, 2, None):
        with pytest.raises(ValueError, match="prefixed is"):
            SMALL.world(query, concept, prefixed=prefixed)
    with pytest.raises(ValueError, match=r"\(1, 4\) and \(2, 81, 4\)"):
        explanation_probabilities(
            model, SMALL.prompts(query, concept), SMALL.explanations(torch.tensor([1, 2]))
        )
    with pytest.raises(ValueError, match="none of the language's"):
        SMALL.world(torch.tensor([[0, 1]]), concept)
    with pytest.raises(ValueError, match="kind is 'none'"):
        SMALL.queries("none")
    with pytest.raises(ValueError, match="count is 0"):
        SMALL.corpus(0, generator())
    with pytest.raises(ValueError, match="concepts hold 1; accepted are forbidden"):
        worst_queries(model, SMALL, concept)
    with pytest.raises(ValueError, match="prefixed is"):
        worst_queries(model, SMALL, torch.tensor([3]), prefixed=1)
    with pytest.raises(ValueError, match="opening is 'none'"):
        opening_mass(model, SMALL, query, concept, opening="none")


def test_words_and_their_weights_are_drawn_apart():
    scores = SMALL._scores()
    same = torch.randn(scores.shape, generator=SMALL._draw("words"), dtype=scores.dtype)
    assert not torch.equal(scores, same)


def test_each_half_of_a_query_reweighs_the_words():
    first, second = SMALL.queries("direct")[0].tolist()
    concept = torch.tensor([0])
    law = SMALL.world(torch.tensor([[first, second]]), concept)
    other = 2 + (first - 1) % SMALL.halves
    assert not torch.equal(law, SMALL.world(torch.tensor([[other, second]]), concept))
    other = 2 + SMALL.halves + (second - 1 - SMALL.halves) % SMALL.halves
    assert not torch.equal(law, SMALL.world(torch.tensor([[first, other]]), concept))


class Opening(nn.Module):
    """A model by its probability of naming after each query, and of staying in the language then.

    `queries` is {(first, second): (naming, staying)}; after any other query it never names.
    """

    def __init__(self, queries):
        super().__init__()
        self.queries, self.calls = queries, []

    def forward(self, tokens):
        self.calls.append(len(tokens))
        found = torch.full((*tokens.shape, SMALL.vocabulary), -60.0, dtype=torch.float64)
        concepts = (tokens[:, 3] - (2 + 2 * SMALL.halves)).clamp(0, SMALL.concepts - 1)
        words = SMALL.explanations(concepts)
        for row, query in enumerate(map(tuple, tokens[:, 1:3].tolist())):
            naming, staying = self.queries.get(query, (1e-12, 1.0))
            found[row, 3, SMALL.opening("names")] = math.log(naming)
            found[row, 3, SMALL.opening("declines")] = math.log1p(-naming)
            for place in range(4, tokens.shape[1]):
                own = words[row, :, place - 3].unique()
                found[row, place, own] = math.log(staying / len(own))
                found[row, place, 0] = math.log(1 - staying + 1e-30)
        return found


def test_an_opening_that_leads_out_of_the_language_is_not_taken_for_harm():
    # The first query names most often, but seldom goes on with words of the concept.
    model = Opening({(2, 5): (0.9, 0.8), (3, 6): (0.8, 1.0)})
    queries, mass = worst_queries(model, SMALL, torch.tensor([3]), chunk=1)
    assert queries.tolist() == [[3, 6]] and abs(float(mass) - 0.8) < 1e-9


def test_the_search_ends_where_no_query_left_can_be_worse():
    model = Opening({(2, 5): (0.9, 1.0), (3, 6): (0.8, 1.0)})
    queries, mass = worst_queries(model, SMALL, torch.tensor([3]), chunk=10)
    assert queries.tolist() == [[2, 5]] and abs(float(mass) - 0.9) < 1e-9
    # The opening, and three words whose beginnings are shared.
    assert model.calls == [SMALL.vocabulary**2, 10, 10, 30, 90]


def test_no_concepts_give_no_queries(model):
    queries, mass = worst_queries(model, SMALL, torch.tensor([]).long())
    assert queries.shape == (0, 2) and mass.shape == (0,)
