"""The ledger: verdicts, what is printed and kept, and what closes with an error."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kempe_nb.notebook import claims, record


def check(claim_id="a-claim", measured=1.0, **options):
    """Check a claim with defaults that hold."""
    options = {"source": "a test"} | options
    if not isinstance(measured, bool | np.bool_) and not {"at_most", "at_least"} & set(options):
        options["at_most"] = 2
    return claims.check(claim_id, f"The sentence of {claim_id}.", measured, **options)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.floats(allow_nan=False), finite, finite)
@settings(deadline=None)
def test_a_claim_holds_exactly_inside_its_bounds(value, a, b):
    claims.clear()
    low, high = sorted((a, b))
    claim = check(measured=value, at_least=low, at_most=high)
    assert (claim.verdict == "holds") == (low <= value <= high)


def test_nan_satisfies_nothing():
    assert check(measured=math.nan, at_most=1e300).verdict == "fails"
    assert check("other", measured=math.nan, at_least=-1e300).verdict == "fails"


def test_a_bool_is_its_own_condition():
    assert check(measured=True).verdict == "holds"
    assert check("other", measured=False).verdict == "fails"


def test_the_printed_text_has_the_verdict_and_no_measured_digit(capsys):
    check(measured=1.23456789, at_most=2)
    printed = capsys.readouterr().out
    assert printed == "HOLDS  a-claim\n  The sentence of a-claim.\n"


def test_close_lists_every_surprise_after_the_whole_run():
    check("good")
    check("too-large", measured=3.0)
    check("not-so", measured=False)
    with pytest.raises(claims.ClaimsError) as error:
        claims.close()
    assert "2 of 3 claims" in str(error.value)
    assert "too-large" in str(error.value) and "not-so" in str(error.value)
    assert "good:" not in str(error.value)


def test_an_expected_difference_is_no_surprise_and_shows_both_sides():
    claim = check(measured=3.0, expect="differs", paper="at most two")
    assert (claim.verdict, claim.paper) == ("differs", "at most two")
    claims.close()


@pytest.mark.parametrize("expect", ["differs", "fails"])
def test_a_claim_that_holds_against_expectation_is_a_surprise(expect):
    check(measured=1.0, expect=expect, paper="something else")
    with pytest.raises(claims.ClaimsError, match="found 'holds'"):
        claims.close()


def test_the_record_holds_the_claims_and_the_modules_in_json(tmp_path, monkeypatch):
    monkeypatch.setenv(record.VARIABLE, str(tmp_path / "facts.json"))
    check(measured=0.5)
    claims.close()
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["claims"][0]["id"] == "a-claim"
    assert facts["claims"][0]["measured"] == 0.5
    assert facts["peak_mib"] > 1
    assert "kempe_nb.notebook.claims" in facts["modules"]


def test_without_an_executor_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(record.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    check()
    claims.close()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_checked_once_in_a_published_run(monkeypatch):
    monkeypatch.setenv(record.VARIABLE, "unused")
    check("one", measured=5.0)
    with pytest.raises(ValueError, match="checked twice"):
        check("one", measured=1.0)


def test_surprises_are_recorded_too_and_the_tally_counts_verdicts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(record.VARIABLE, str(tmp_path / "facts.json"))
    check("good")
    check("bad", measured=9.0)
    check("other", measured=9.0, expect="differs", paper="less")
    with pytest.raises(claims.ClaimsError):
        claims.close()
    recorded = json.loads((tmp_path / "facts.json").read_text())["claims"]
    assert [claim["verdict"] for claim in recorded] == ["holds", "fails", "differs"]
    assert "3 claims: 1 holds, 1 fails, 1 differs" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["", "identity", "consistency", "measurement"])
def test_the_kind_of_a_claim_is_recorded(kind, tmp_path, monkeypatch):
    monkeypatch.setenv(record.VARIABLE, str(tmp_path / "facts.json"))
    assert check(kind=kind).kind == kind
    claims.close()
    assert json.loads((tmp_path / "facts.json").read_text())["claims"][0]["kind"] == kind


def test_a_claim_that_is_not_sorted_yet_has_no_kind(capsys):
    assert check().kind == ""
    capsys.readouterr()
    claims.close()
    assert capsys.readouterr().out == "1 claims: 1 holds, 0 fails, 0 differs\n"


def test_the_tally_counts_measurements_in_a_second_line(capsys):
    check("algebra", kind="identity")
    check("two-ways", kind="consistency")
    check("seen", kind="measurement")
    check("seen-otherwise", measured=9.0, kind="measurement", expect="differs", paper="less")
    capsys.readouterr()
    claims.close()
    assert capsys.readouterr().out.splitlines() == [
        "4 claims: 3 holds, 0 fails, 1 differs",
        "2 measurements: 1 holds, 0 fails, 1 differs",
    ]


def test_what_is_shown_has_value_unit_and_condition():
    claim = check(measured=1.23456, at_least=1, at_most=2.5, unit="s")
    assert (claim.shown, claim.condition) == ("1.23 s", "1 to 2.5 s")
    assert check("low", measured=3, at_least=2).condition == "≥ 2"
    assert check("high", measured=1234567, at_most=2_000_000).shown == "1234567"
    assert check("small", measured=1.5e-7, at_most=1e-5).condition == "≤ 1e-5"
    assert check("numpy", measured=np.bool_(True)).shown == "yes"


def test_a_repeated_identity_is_refused_but_a_cell_may_run_twice():
    check("one", measured=1.0)
    check("one", measured=1.5)
    with pytest.raises(ValueError, match="'one' is taken"):
        claims.check("one", "Another sentence.", 1.0, at_most=2, source="a test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"claim_id": "Not an id"}, "claim_id is 'Not an id'"),
        ({"measured": "text"}, "measured is 'text'"),
        ({"at_most": None}, "needs a bound"),
        ({"at_most": math.nan}, "a bound is nan"),
        ({"at_most": math.inf}, "a bound is inf; accepted for at_most and at_least are finite"),
        ({"at_least": -math.inf}, "a bound is -inf"),
        ({"at_most": 2, "at_least": -np.inf}, "a bound is -inf"),
        ({"kind": "fact"}, "kind is 'fact'; accepted are 'identity', 'consistency', 'measurement'"),
        ({"kind": None}, "kind is None"),
        ({"at_most": 1, "at_least": 2}, "is above"),
        ({"measured": True, "at_most": 1}, "measured is a bool"),
        ({"claim_id": None}, "claim_id is None"),
        ({"at_most": "2"}, "a bound is '2'"),
        ({"expect": "perhaps"}, "accepted are 'holds', 'fails', 'differs'"),
        ({"expect": "differs"}, "paper is empty"),
        ({"source": " "}, "source is ' '"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        check(**options)
