"""Members of the family against each other: limits in which two of them are the same."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from kempe_nb.methods.deep_feature_reweighting import balanced_subsamples, fit_sparse_last_layers
from kempe_nb.methods.group_aware_family import MEMBERS, train_member
from kempe_nb.methods.group_weights import group_counts, group_weights
from kempe_nb.methods.last_layer import fit_last_layers

SIZES = 12, 3, 4, 11
GROUPS = torch.arange(4).repeat_interleave(torch.tensor(SIZES))
LABELS = GROUPS // 2
FEATURES = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FEATURES[:, 0] += LABELS
FEATURES[:, 1] += 2 * (GROUPS % 2)
DATA = FEATURES, LABELS, GROUPS


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@given(st.floats(0, 3), st.floats(0, 3))
@settings(max_examples=15, deadline=None)
def test_gap_without_radius_is_group_nll(strength, exponent):
    given_ = {"strength": strength, "exponent": exponent}
    same(
        train_member("GAP", *DATA, radius=0.0, **given_), train_member("group NLL", *DATA, **given_)
    )


def test_no_strength_leaves_erm_whatever_the_rest():
    erm = train_member("ERM", *DATA)
    same(train_member("GAP", *DATA, strength=0.0, exponent=4.0, radius=0.3), erm)
    same(train_member("JTT", *DATA, wrong=LABELS == 0, upweight=1.0), erm)


def test_exponent_0_without_radius_is_erm_at_a_larger_rate():
    found = train_member("group NLL", *DATA, strength=0.5, exponent=0.0, rate=0.1)
    same(found, train_member("ERM", *DATA, rate=0.15))


def test_rwg_is_the_mean_of_group_means_and_group_dro_its_limit():
    rwg = train_member("RWG", *DATA)
    equal = group_weights(GROUPS, 1.0, torch.float64)
    same(rwg, fit_last_layers(FEATURES, LABELS, equal))
    same(train_member("group DRO", *DATA, group_rate=0.0), rwg)
    moved = train_member("group DRO", *DATA, group_rate=0.1)
    assert (moved - rwg).abs().max() > 0.01


def test_the_prior_is_centred_where_it_is_said():
    centre = torch.ones(4, 2, dtype=torch.float64)
    centre[:, 1] = -1
    settings_ = {"strength": 0.5, "exponent": 1.0, "radius": 0.1, "precision": 1e3, "rate": 1e-4}
    held = train_member("GAP", *DATA, centre=centre, momentum=0.0, steps=200, **settings_)
    assert (held - centre).abs().max() < 0.01
    settings_ |= {"start": centre, "momentum": 0.0, "steps": 200}
    assert train_member("GAP", *DATA, **settings_).abs().max() < 0.01


def test_jtt_counts_wrong_samples_more():
    wrong = GROUPS % 3 == 0
    found = train_member("JTT", *DATA, wrong=wrong, upweight=torch.tensor([1.0, 5.0]))
    likelihood = torch.where(wrong, 5.0, 1.0).double()
    same(found[1:], fit_last_layers(FEATURES, LABELS, likelihood / likelihood.sum()))


def test_dfr_is_the_mean_of_its_refits():
    penalty = torch.tensor([0.02, 0.05], dtype=torch.float64)
    found = train_member(
        "DFR", *DATA, penalty=penalty, refits=3, generator=torch.Generator().manual_seed(4)
    )
    subsamples = balanced_subsamples(GROUPS, 3, torch.Generator().manual_seed(4), torch.float64)
    for each, value in zip(found, penalty, strict=True):
        alone = fit_sparse_last_layers(FEATURES, LABELS, subsamples, float(value)).mean(0)
        torch.testing.assert_close(each, alone, rtol=0, atol=1e-9)


def test_exponents_may_differ_between_configurations():
    exponents = torch.tensor([4.0, 0.0, 1.0])
    settings_ = {"strength": 0.5, "radius": 0.1, "steps": 20}
    found = train_member("GAP", *DATA, exponent=exponents, **settings_)
    for each, exponent in zip(found, exponents.tolist(), strict=True):
        alone = train_member("GAP", *DATA, exponent=exponent, **settings_)
        same(each[None], alone)


def test_members_take_what_they_say():
    assert group_counts(GROUPS).tolist() == list(SIZES)
    with pytest.raises(ValueError, match="name is 'SUBG'; accepted are 'ERM', 'RWG'"):
        train_member("SUBG", *DATA)
    with pytest.raises(TypeError, match="ERM: it has no radius; accepted are precision"):
        train_member("ERM", *DATA, radius=0.1)
    with pytest.raises(TypeError, match="GAP: it needs exponent, radius"):
        train_member("GAP", *DATA, strength=0.1)
    with pytest.raises(TypeError, match="DFR: it has no rate; it needs generator, refits"):
        train_member("DFR", *DATA, penalty=0.1, rate=0.1)
    with pytest.raises(ValueError, match="no samples of group 0"):
        train_member("ERM", FEATURES, LABELS, GROUPS + 1)
    assert all(member.idea for member in MEMBERS.values())


@pytest.mark.parametrize(
    "settings_, said, error",
    [
        ({"wrong": LABELS == 0, "upweight": 0.5}, "upweight holds 0.5", ValueError),
        ({"wrong": LABELS == 0, "upweight": True}, "upweight is True", ValueError),
        ({"wrong": [True], "upweight": 2.0}, "wrong is a list", TypeError),
        ({"wrong": LABELS, "upweight": 2.0}, "wrong is torch.int64", TypeError),
        ({"wrong": (LABELS == 0)[:3], "upweight": 2.0}, "wrong has shape", ValueError),
    ],
)
def test_bad_settings_of_jtt_are_refused(settings_, said, error):
    with pytest.raises(error, match=said):
        train_member("JTT", *DATA, **settings_)


@pytest.mark.parametrize(
    "name, data, settings_, said",
    [
        ("ERM", (FEATURES, LABELS, GROUPS[:7]), {}, r"groups are .* \(7,\)"),
        ("RWG", (FEATURES, LABELS, GROUPS[:7]), {}, r"groups are .* \(7,\)"),
        ("ERM", (FEATURES[:, 0], LABELS, GROUPS), {}, "features have shape"),
        ("DFR", DATA, {"penalty": True}, "penalty is True"),
        ("DFR", DATA, {"penalty": torch.zeros(0)}, r"penalty is \[\]"),
        ("group NLL", DATA, {"exponent": "1"}, "exponent is '1'"),
        ("group NLL", DATA, {"exponent": torch.zeros(0)}, "exponent has shape"),
        ("group NLL", DATA, {"exponent": torch.zeros(2, 2)}, "exponent has shape"),
        ("group NLL", DATA, {"exponent": torch.tensor([1.0, -1.0])}, "exponent is -1"),
    ],
)
def test_bad_data_and_settings_are_refused(name, data, settings_, said):
    rest = {"group NLL": {"strength": 1.0}, "DFR": {"refits": 1, "generator": torch.Generator()}}
    with pytest.raises(ValueError, match=said):
        train_member(name, *data, **rest.get(name, {}), **settings_)


def test_one_sample_in_a_group_is_enough():
    groups = torch.cat([torch.zeros(14), torch.ones(15), torch.tensor([2.0])]).long()
    settings_ = {"strength": 1.0, "exponent": 1.0, "radius": 0.1}
    found = train_member("GAP", FEATURES, LABELS, groups, **settings_)
    assert torch.isfinite(found).all()
