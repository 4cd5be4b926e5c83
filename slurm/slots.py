"""At most so many items under way at once, on a cluster or on this machine, whatever happens to them on the way.

What run directories say is looked at each time; the scheduler is asked every ASK_S only, about all of them in one call.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness import lease
from harness.errors import Refused
from harness.runs import cancelled
from slurm import control, profiles, scheduler, states, submission
from slurm.states import State
from slurm.submission import Item, Submission
from slurm.submit import submit

ASK_S = 10.0
RETRY_S = 300.0  # until a cluster that took no more jobs is asked for more than that


class Slots:
    """wanted: items that wait for a slot. live: items under way, with the submission that has their job."""

    def __init__(
        self, runs: Path, cluster: str, size: int, code: Path, data_root: Path | None, say: Callable[[str], None]
    ) -> None:
        self.runs, self.cluster, self.size, self.code, self.data_root, self.say = (
            runs, cluster, size, code, data_root, say,
        )  # fmt: skip
        self.local = profiles.load(cluster).launcher == "local"
        self.wanted: dict[Item, bool] = {}  # and whether a person asks for it, in spite of earlier failures
        self.live: dict[Item, Submission | None] = {}
        self.stopping: dict[Item, str] = {}
        self.places: dict[Item, int] = {}  # which of this machine's GPUs
        self.asked = float("-inf")
        self.room, self.full_until = size, float("-inf")  # fewer than size, where the cluster takes no more

    def want(self, items: Iterable[Item], new: bool = False) -> None:
        """Have these done. Those under way since before this process began are adopted, unless all are new."""
        items = [item for item in items if item not in self.live and item not in self.wanted]
        made = submission.read_all(self.runs) if items and not new else []
        has = {item: one for one in made for _, _, item in one.items()}
        known = states.survey({id(has[item]): has[item] for item in items if item in has}.values())
        for item in items:
            if item in known and known[item].word in states.IN_FLIGHT:
                self._take(item, has[item])
            else:
                self.wanted[item] = True

    def look(self) -> dict[Item, State]:
        """Items at an end since the last look, with how: over, with a record; or cancelled, refused, stuck.

        What was lost on the way is wanted again. Errors: Unavailable.
        """
        ended = {item: state for item in self.live if (state := self._ended(item))}
        for item in ended:
            self._leave(item)
        if self.live and time.monotonic() - self.asked >= ASK_S:
            ended |= self._survey()
        return ended

    def fill(self) -> None:
        """Launch what is wanted, as far as slots are free.

        Errors: Unavailable; Refused by a cluster that takes none of the jobs; those of `submit`.
        """
        if time.monotonic() >= self.full_until:
            self.room = self.size
        room = self.room - len(self.live)
        if room <= 0 or not self.wanted:
            return
        for asked in (True, False):
            batch = [item for item, by_person in self.wanted.items() if by_person == asked][:room]
            room -= len(batch)
            for items in [[item] for item in batch] if self.local else [batch] * bool(batch):
                self._launch(items, asked)

    def stop(self, why: dict[Item, str]) -> None:
        """End these after a checkpoint, and have nobody start them again by itself; `look` tells when they have."""
        for item in [item for item in why if item in self.wanted]:
            self.wanted.pop(item)
            self._take(item, None)
        self.stopping |= why
        found = states.survey(one for one in {id(s): s for s in map(self.live.get, why) if s}.values())
        for item, reason in why.items():
            control.stop({item: found.get(item) or states.of(item, self.runs, None)}, self.runs, reason)

    # ------------------------------------------------------------------------------------------ inside

    def _take(self, item: Item, one: Submission | None) -> None:
        self.live[item] = one
        self.places[item] = self._free_place()

    def _free_place(self) -> int:
        return min(set(range(self.size)) - set(self.places.values()), default=0)

    def _leave(self, item: Item) -> None:
        self.live.pop(item)
        self.stopping.pop(item, None)
        self.places.pop(item)

    def _ended(self, item: Item) -> State | None:
        """What the run directory alone tells."""
        if states.done(item, self.runs):
            return states.of(item, self.runs, None)
        path = item.path(self.runs)
        if item in self.stopping and cancelled(path) is not None and not lease.holder(path):
            return State("cancelled", self.stopping[item])
        return None

    def _survey(self) -> dict[Item, State]:
        """What the scheduler knows, too. Jobs that it holds are released, those still to be stopped are asked again."""
        made = {id(one): one for one in self.live.values() if one}
        known = states.survey(made.values())
        self.asked = time.monotonic()
        found = {item: known.get(item) or states.of(item, self.runs, None) for item in self.live}
        scheduler.release([state.job for state in found.values() if state.word == "held"])
        again = {item: s for item, s in found.items() if item in self.stopping and s.word in states.IN_FLIGHT}
        for item, state in again.items():
            control.stop({item: state}, self.runs, self.stopping[item])
        ended = {item: state for item, state in found.items() if state.word in (*states.OVER, *states.ON_REQUEST)}
        lost = [item for item, state in found.items() if state.word in states.AT_REST]
        for item in (*ended, *lost):
            self._leave(item)
        self.wanted |= dict.fromkeys(lost, False)
        return ended

    def _launch(self, items: Sequence[Item], asked: bool) -> None:
        """As one array; if the cluster does not take so many, as two smaller ones, and so on."""
        try:
            report = submit(
                items, self.runs, self.cluster, data_root=self.data_root, asked=asked, code=self.code, known={},
                place=(self._free_place(), self.size),
            )  # fmt: skip
        except Refused as error:
            if len(items) > 1:
                for half in (items[: len(items) // 2], items[len(items) // 2 :]):
                    if len(self.live) < self.room:
                        self._launch(half, asked)
                return
            if not self.live:
                raise
            self.room, self.full_until = len(self.live), time.monotonic() + RETRY_S
            self.say(
                f"the cluster takes no more than {len(self.live)} of these jobs for now: {error}; the others follow as "
                "these end"
            )
            return
        for item in items:
            self.wanted.pop(item)
            self._take(item, report.made)
