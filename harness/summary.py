"""What the verdicts on the claims of one source say together, without taking the claims for independent.

They are not: the same seeds stand behind many of them. So words are counted and not multiplied, and how many claims
*differ* is judged for all tested ones together by Holm's adjustment, which is valid under any dependence: the
probability that it names even one claim that is true is at most 5 % a source.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.statistics import ALPHA, holm
from harness.verdict import Verdict

NOTE = (
    "Claims of one source share seeds, so their verdicts are not independent. differs (Holm) counts those that differ "
    "at 5 % for all tested ones of the source together; what is counted (collapse, bound) or known to differ is no test"
)


@dataclass(frozen=True)
class Summary:
    """Of one claims file. stem: its name.

    words: how many of the source's own claims got which word. known: of those that differ, how many were known to.
    tested: claims with a p-value, which are adjusted together. differing: ids of those that differ after Holm's
    adjustment. others: claims that are not the source's own, so counted nowhere else: quoted numbers, expectations.
    """

    stem: str
    words: dict[str, int]
    known: int
    tested: int
    differing: tuple[str, ...]
    others: int


def summarise(verdicts: Iterable[Verdict]) -> list[Summary]:
    """One per claims file, in the order of the verdicts; those on records of ours are left out."""
    files: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.claim is not None:
            files.setdefault(verdict.id.partition("/")[0], []).append(verdict)
    return [_summary(stem, members) for stem, members in files.items()]


def _summary(stem: str, verdicts: list[Verdict]) -> Summary:
    own = [v for v in verdicts if v.claim and v.claim.origin == "own" and v.claim.source.kind != "expectation"]
    tested = [v for v in own if v.p is not None and v.claim and not v.claim.known]
    adjusted = holm([v.p for v in tested if v.p is not None])
    return Summary(
        stem=stem,
        words=dict(Counter(v.word for v in own)),
        known=sum(v.known for v in own),
        tested=len(tested),
        differing=tuple(v.id for v, p in zip(tested, adjusted, strict=True) if p <= ALPHA),
        others=len(verdicts) - len(own),
    )
