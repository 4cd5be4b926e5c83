"""What the verdicts on the claims of a source say together."""

from dataclasses import replace
from typing import Any

from test_claims import collapse, load, source, value

from harness.summary import Summary, summarise
from harness.verdict import Verdict


def judged(item: dict[str, Any], word: str, p: float | None = None, known: bool = False) -> Verdict:
    (claim,) = load(item).claims
    return Verdict(claim.id, claim.kind, claim.scale, word, "", claim=claim, p=p, known=known)


def test_words_are_counted_and_differences_adjusted_by_source() -> None:
    verdicts = [
        judged(value(id="p/a"), "differs", 0.001),
        judged(value(id="p/b"), "differs", 0.02),  # 3 tested: 0.02 times 2 is 0.04
        judged(value(id="p/c"), "reproduced", 1.0),
        judged(value(id="p/d"), "untried"),
        judged(collapse(id="p/e"), "differs"),  # counted, no test
        judged(collapse(id="p/f", known="k"), "differs", known=True),
        judged(value(id="p/g", origin="quoted"), "differs", 1e-9),
        judged(value(id="p/h", source=source("73.20") | {"kind": "expectation"}), "differs", 1e-9),
        judged(value(id="q/a"), "differs", 0.04),
        Verdict("record/r", "record", "paper", "held", ""),
    ]
    first, second = summarise(verdicts)
    words = {"differs": 4, "reproduced": 1, "untried": 1}
    assert first == Summary("p", words, known=1, tested=3, differing=("p/a", "p/b"), others=2)
    assert second == Summary("q", {"differs": 1}, known=0, tested=1, differing=("q/a",), others=0)


def test_what_differs_alone_may_not_differ_among_many() -> None:
    many = [judged(value(id=f"p/{i}"), "differs", 0.04) for i in range(3)]
    assert summarise(many)[0].differing == ()
    assert summarise(many[:1])[0].differing == ("p/0",)


def test_a_claim_that_is_known_to_differ_is_outside_the_family_whatever_its_word() -> None:
    known = judged(collapse(id="p/k", known="k"), "differs", 1e-9, known=True)
    assert summarise([known])[0] == Summary("p", {"differs": 1}, known=1, tested=0, differing=(), others=0)
    assert summarise([replace(known, word="reproduced", known=False)])[0].tested == 0
    assert summarise([]) == []
