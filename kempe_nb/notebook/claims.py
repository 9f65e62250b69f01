"""The ledger of a chapter: what the paper claims, what was measured, and the verdict.

A claim *holds* when the measured value satisfies its condition. A claim that does not is recorded
as *fails*, or as *differs* where the page expects that: the paper says one thing, the measurement
another, and both are shown. Whatever turns out otherwise than the notebook expects is kept until
`close`, which raises with the whole list, so that one run shows everything.
"""

import math
import re
import textwrap
from dataclasses import asdict, dataclass
from numbers import Real

import numpy as np

from kempe_nb.notebook import record

VERDICTS = ("holds", "fails", "differs")
#: What a claim can be evidence of; see `check`. Claims of chapters of the old form have none yet.
KINDS = ("identity", "consistency", "measurement")


class ClaimsError(AssertionError):
    """Some claims of the chapter turned out otherwise than the notebook expects."""


@dataclass(frozen=True)
class Claim:
    """One checked statement; every field is text or a number, so that it fits into JSON."""

    id: str
    sentence: str
    measured: float
    shown: str
    condition: str
    source: str
    paper: str
    verdict: str
    expected: str
    kind: str = ""


_ledger: dict[str, Claim] = {}


def check(
    claim_id: str,
    sentence: str,
    measured: float | bool,
    *,
    source: str,
    at_most: float | None = None,
    at_least: float | None = None,
    paper: str = "",
    expect: str = "holds",
    unit: str = "",
    kind: str = "",
) -> Claim:
    """Check one claim, keep it in the chapter's ledger and print its verdict.

    The printed line holds the identity, the sentence and the verdict, but no measured digit: it is
    kept in git and compared by nbval on every machine.

    Claims are of three kinds, and only the last is evidence for or against a paper:

    * an *identity* is true by algebra; if it fails, the code is wrong,
    * a *consistency* compares two computations of ours, a formula with a simulation, say; if it
      fails, one of the two is wrong,
    * a *measurement* could have come out otherwise, with all of our code right.

    Parameters
    ----------
    claim_id : str
        Lower-case words joined by hyphens; the prose refers to it by the `claim` role.
    sentence : str
        What is claimed, a sentence that could be false.
    measured : float or bool
        The measured value. A bool has to be true; a number has to satisfy the bounds given.
    source : str
        Where the statement comes from: the paper with its section, or our own derivation.
    at_most, at_least : float, optional
        Inclusive, finite bounds; at least one of them for a number, none for a bool.
    paper : str
        What the paper says; required when `expect` is "differs".
    expect : {"holds", "fails", "differs"}
        The verdict that the page is written for.
    unit : str
        Printed behind the measured value.
    kind : {"identity", "consistency", "measurement", ""}
        What the claim can be evidence of; empty for one that is not sorted yet.

    Returns
    -------
    Claim

    Raises
    ------
    ValueError
        For a malformed or repeated identity, missing, infinite or contradictory bounds, an unknown
        verdict or an unknown kind. A NaN is a value that satisfies nothing.
    """
    _refuse_bad_arguments(claim_id, sentence, measured, source, at_most, at_least, paper, expect)
    if kind not in ("", *KINDS):
        raise ValueError(f"kind is {kind!r}; accepted are {', '.join(map(repr, KINDS))}")
    satisfied = _satisfied(measured, at_most, at_least)
    verdict = "holds" if satisfied else ("differs" if expect == "differs" else "fails")
    claim = Claim(
        id=claim_id,
        sentence=sentence,
        measured=float(measured),
        shown=_shown(measured, unit),
        condition=_condition(measured, at_most, at_least, unit),
        source=source,
        paper=paper,
        verdict=verdict,
        expected=expect,
        kind=kind,
    )
    _ledger[claim_id] = claim
    lines = textwrap.wrap(sentence, 72, initial_indent="  ", subsequent_indent="  ")
    print("\n".join([f"{verdict.upper()}  {claim_id}", *lines]))
    return claim


def close() -> None:
    """Write the record and print the tally; raise when a claim turned out unexpectedly.

    The first line counts all claims. A second one counts the measurements alone, where claims say
    that they are some: a page with many identities has not confirmed much.

    Raises
    ------
    ClaimsError
        Lists every claim whose verdict is not the expected one, with its value and its condition.
    """
    claims = list(_ledger.values())
    record.write([asdict(claim) for claim in claims])
    print(f"{len(claims)} claims: {_tally(claims)}")
    measurements = [claim for claim in claims if claim.kind == "measurement"]
    if measurements:
        print(f"{len(measurements)} measurements: {_tally(measurements)}")
    surprises = [claim for claim in claims if claim.verdict != claim.expected]
    if surprises:
        lines = [
            f"  {c.id}: expected {c.expected!r}, found {c.verdict!r}; "
            f"measured {c.shown}, required {c.condition} ({c.sentence})"
            for c in surprises
        ]
        raise ClaimsError(f"{len(surprises)} of {len(claims)} claims:\n" + "\n".join(lines))


def _tally(claims: list[Claim]) -> str:
    return ", ".join(f"{sum(c.verdict == v for c in claims)} {v}" for v in VERDICTS)


def clear() -> None:
    """Forget all claims: for tests, and for a live notebook that starts over."""
    _ledger.clear()


def _refuse_bad_arguments(claim_id, sentence, measured, source, at_most, at_least, paper, expect):
    if not isinstance(claim_id, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", claim_id):
        raise ValueError(f"claim_id is {claim_id!r}; accepted are words like 'clean-exponent'")
    known = _ledger.get(claim_id)
    if known is not None and record.is_published():
        raise ValueError(f"claim_id {claim_id!r} is checked twice in one run")
    if known is not None and known.sentence != sentence:
        raise ValueError(f"claim_id {claim_id!r} is taken by another claim: {known.sentence!r}")
    for name, text in (("sentence", sentence), ("source", source)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} is {text!r}; a claim needs one in words")
    if expect not in VERDICTS:
        raise ValueError(f"expect is {expect!r}; accepted are {', '.join(map(repr, VERDICTS))}")
    if expect == "differs" and not paper:
        raise ValueError("paper is empty; expect='differs' has to say what the paper says")
    bounds = [bound for bound in (at_most, at_least) if bound is not None]
    if _is_bool(measured):
        if bounds:
            raise ValueError("at_most and at_least are for numbers; measured is a bool")
        return
    if not isinstance(measured, Real):
        raise ValueError(f"measured is {measured!r}; accepted are a real number and a bool")
    if not bounds:
        raise ValueError("neither at_most nor at_least is given; a number needs a bound")
    for bound in bounds:
        if not isinstance(bound, Real) or not math.isfinite(bound):
            raise ValueError(
                f"a bound is {bound!r}; accepted for at_most and at_least are finite numbers"
            )
    if len(bounds) == 2 and at_least > at_most:
        raise ValueError(f"at_least={at_least!r} is above at_most={at_most!r}")


def _is_bool(value) -> bool:
    return isinstance(value, bool | np.bool_)


def _satisfied(measured, at_most, at_least) -> bool:
    if _is_bool(measured):
        return bool(measured)
    value = float(measured)
    above = at_least is None or value >= at_least
    below = at_most is None or value <= at_most
    return above and below and not math.isnan(value)


def _shown(measured, unit) -> str:
    if _is_bool(measured):
        return "yes" if measured else "no"
    return f"{_digits(measured)} {unit}".strip()


def _condition(measured, at_most, at_least, unit) -> str:
    if _is_bool(measured):
        return "yes"
    if at_most is None:
        return f"≥ {_digits(at_least)} {unit}".strip()
    if at_least is None:
        return f"≤ {_digits(at_most)} {unit}".strip()
    return f"{_digits(at_least)} to {_digits(at_most)} {unit}".strip()


def _digits(value) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{float(value):.3g}".replace("e-0", "e-").replace("e+0", "e")
