"""What a run of a small notebook left behind, for the tests of the extension."""

CLAIM = {
    "id": "small",
    "sentence": "One is at most two.",
    "shown": "1.25 s",
    "condition": "≤ 2 s",
    "source": "a test",
    "paper": "",
    "verdict": "holds",
    "expected": "holds",
    "measured": 1.25,
    "kind": "measurement",
    "code": 'claims.check("small", "One is at most two.", 1.25, at_most=2)',
}
FACTS = {
    "title": "The first chapter",
    "claims": [CLAIM],
    "seconds": 130.0,
    "peak_mib": 512.4,
    "device": "x86_64",
    "cores": 2,
    "profile": "cpu",
    "date": "2026-01-02",
    "commit": "abc1234",
    "versions": {"torch": "2.0", "python": "3.11"},
    "figures": 3,
    "sliders": 1,
}
