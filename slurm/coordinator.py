"""The coordinator of a study: ask, launch, watch, prune, tell; then the finals. It alone writes a study's files.

Each trial is a job of its own, so a finished one is replaced at once. Every decision is in a file before it is acted
upon: the trial before its job is submitted, the pruner's word before the job is stopped, the outcome before Optuna is
told. So a coordinator that is killed at any moment and started again, on this or another machine, goes on where the
files are: nothing is lost, nothing is run twice, and jobs that went on meanwhile are adopted.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from harness import attempts, lease
from harness.errors import Held, Interrupted, Refused, RunFailed, Unavailable
from harness.runs import read_lines, writable, write_atomically
from harness.signals import Stop
from harness.studies import selection
from harness.studies import study as studies
from harness.studies.optimise import Optimiser
from harness.studies.study import HELD_OUT, Final, Finalist, Study, Trial
from slurm import snapshot, states
from slurm.slots import Slots
from slurm.states import State
from slurm.submission import Item

LOOK_S = 0.5  # between two looks at run directories
PRUNED = "pruned by"  # how the reason of a run begins that a study has ended


def coordinate(
    study: Study,
    runs: Path,
    cluster: str,
    parallel: int,
    data_root: Path | None,
    stop: Stop,
    say: Callable[[str], None],
) -> None:
    """Run a study to its end, or go on with it. parallel: trials side by side.

    Errors: Held by another coordinator; Interrupted by a signal; RunFailed; those of Optimiser and Slots.
    """
    with writable(study.folder(runs)):
        study.folder(runs).mkdir(parents=True, exist_ok=True)
    with lease.hold(study.folder(runs), {}):
        Coordinator(study, runs, cluster, parallel, data_root, say).work(stop)


class Coordinator:
    """trials: all that were asked for, by number; the files say the same."""

    def __init__(
        self, study: Study, runs: Path, cluster: str, parallel: int, data_root: Path | None, say: Callable[[str], None]
    ) -> None:
        self.study, self.runs, self.parallel, self.say = study, runs, parallel, say
        self.trials = {trial.number: trial for trial in studies.read_trials(runs, study.name)}
        self.optimiser = Optimiser(study, runs)  # before the study is written: a bad URL leaves nothing behind
        studies.write(study, runs)
        self.slots = Slots(runs, cluster, parallel, code_of(study, runs), data_root, say)
        self.sizes: dict[int, int] = {}  # of a trial's curve when it was last read
        self.given_up: set[Item] = set()  # finals that cannot be run
        self.ended: dict[Item, State] = {}  # whose trials may not have been told yet
        self.behind = False  # whether the storage may have missed something
        self.follow()
        self.slots.want(self.item(trial) for trial in self.open())
        self.slots.stop({self.item(trial): trial.stop for trial in self.open() if trial.stop})

    def work(self, stop: Stop) -> None:
        """Until the study is over. Errors: Interrupted by a signal, its runs go on; and what a first look finds."""
        silent, first = "", True
        while not stop.signal:
            try:
                if self.look():
                    return
                first, silent = False, ""
            except (Unavailable, Refused) as error:  # scheduler or storage are down or full: runs go on, and so do we
                if first:
                    raise
                self.behind = True
                if str(error) != silent:
                    self.say(f"{error}; looking again")
                    silent = str(error)
                time.sleep(5)
            time.sleep(LOOK_S)
        raise Interrupted(
            f"study {self.study.name!r} stopped by {stop.signal}; its {len(self.slots.live)} runs under way go on, the "
            "same command goes on with the study"
        )

    def look(self) -> bool:
        """One look at everything. Returns whether the study is over."""
        if self.behind:
            self.follow()
            self.behind = False
        self.ended |= self.slots.look()
        for trial in self.open():
            if state := self.ended.get(self.item(trial)):  # of two trials with the same settings, perhaps
                self.tell(trial, state)
        self.given_up |= {item for item, state in self.ended.items() if state.word not in states.OVER}
        self.ended = {}
        self.prune()
        self.ask()
        over = len(self.trials) >= self.study.trials and not self.open() and self.finals()
        self.slots.fill()
        return over

    def open(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.outcome]

    def item(self, trial: Trial) -> Item:
        overrides = (*trial.overrides, *self.study.watched())
        return Item(self.study.recipe, trial.seed, overrides, trial.digest)

    # ------------------------------------------------------------------------------------------ trials

    def ask(self) -> None:
        while len(self.open()) < self.parallel and len(self.trials) < self.study.trials:
            trial = self.optimiser.ask()
            self.keep(trial)
            if trial.outcome:  # the recipe cannot take these settings
                self.follow()
                self.say(line(self.study, trial, self.trials))
            else:
                self.slots.want([self.item(trial)], new=True)

    def prune(self) -> None:
        """Show the pruner what is new of each curve; what it ends is stopped, after a checkpoint."""
        for trial in self.open():
            file = self.item(trial).path(self.runs) / "metrics.jsonl"
            size = file.stat().st_size if file.exists() else 0
            if trial.stop or size == self.sizes.get(trial.number, 0):
                continue
            epoch = self.optimiser.prune(trial, self.curve(trial))
            self.sizes[trial.number] = size
            if epoch is not None and epoch < self.study.base().budget.epochs:
                trial = replace(trial, stop=f"{PRUNED} {self.study.pruner} at epoch {epoch}")
                self.keep(trial)
                self.slots.stop({self.item(trial): trial.stop})

    def tell(self, trial: Trial, state: State) -> None:
        """Note how a trial ended, then tell Optuna."""
        if state.word == "cancelled" and state.why.startswith(PRUNED) and not trial.stop:
            self.slots.want([self.item(trial)])  # another study had the same run, and has no more use for it
            return
        path = self.item(trial).path(self.runs)
        record = path / "record.json"
        if trial.stop and not record.exists():
            with contextlib.suppress(Held):  # another study goes on with the same run
                attempts.bury(path, "cancelled", trial.stop)  # if it was killed before it could say so itself
        lines = attempts.read(path)
        curve = read_lines(path / "metrics.jsonl")
        steps = [one["steps"] for one in lines if one["event"] == "start"]
        trial = replace(
            trial, seconds=attempts.seconds(lines), step=curve[-1]["step"] if curve else 0, steps=max(steps, default=0)
        )
        if record.exists():
            found = json.loads(record.read_text())
            value, why = studies.score(self.study, found), found["reason"]
            outcome = found["status"] if value is not None or found["status"] == "diverged" else "failed"
            trial = replace(trial, outcome=outcome, value=value, why=why, step=found["steps"])
        elif trial.stop:
            trial = replace(trial, outcome="pruned", why=trial.stop)
        else:
            trial = replace(trial, outcome="failed", why=state.why or state.word)
        self.keep(trial)
        self.say(line(self.study, trial, self.trials))
        self.optimiser.tell(trial, self.curve(trial))
        self._check_failures()

    def follow(self) -> None:
        """Bring Optuna's storage to what the files say, and take up what it alone knows."""
        found = self.optimiser.follow(list(self.trials.values()), self.curve)
        for trial in found:
            self.keep(trial)
        self.slots.want(self.item(trial) for trial in found if not trial.outcome)
        if any(trial.outcome for trial in found):  # the recipe cannot take these settings
            self.follow()

    def keep(self, trial: Trial) -> None:
        studies.write_trial(self.runs, self.study.name, trial)
        self.trials[trial.number] = trial

    def curve(self, trial: Trial) -> Mapping[int, float]:
        return studies.curve(self.study, self.runs, trial)

    def _check_failures(self) -> None:
        """Errors: RunFailed if nothing but failures came of the first trials: a sweep would burn the rest, too."""
        outcomes = Counter(trial.outcome for trial in self.trials.values())
        if outcomes["failed"] >= 3 and outcomes["failed"] == outcomes.total() - outcomes[""]:
            last = next(trial for trial in reversed(self.trials.values()) if trial.outcome == "failed")
            raise RunFailed(f"all of the first {outcomes['failed']} trials of {self.study.name!r} failed: {last.why}")

    # ------------------------------------------------------------------------------------------ finals

    def finals(self) -> bool:
        """The best trials and the default with fresh seeds, then the test split for the winner and the default."""
        if not self.study.seeds_final:
            return True
        final = studies.read_final(self.runs, self.study.name)
        entries = selection.finalists(self.study, list(self.trials.values()))
        seeds = tuple(range(self.study.seeds_final))
        if final is None or (final.finalists, final.seeds) != (entries, seeds):  # more may be asked for later
            final = Final(finalists=entries, seeds=seeds)
            studies.write_final(self.runs, self.study.name, final)
            self.say(f"finals: {', '.join(one.label for one in entries)}, {len(seeds)} fresh seeds each")
        if final.winner is None:
            items = [self.final_item(one, seed) for one in final.finalists for seed in final.seeds]
            if not self.all_done(items):
                return False
            comparisons = selection.compare_runs(self.study, self.runs, final)
            final = replace(final, winner=selection.winner(comparisons))
            studies.write_final(self.runs, self.study.name, final)
        tested = {position: final.finalists[position] for position in (0, final.winner or 0)}.values()
        return self.all_done([item for one in tested for seed in final.seeds for item in self.tests(one, seed)])

    def final_item(self, one: Finalist, seed: int) -> Item:
        return Item(self.study.recipe, seed, (*one.overrides, HELD_OUT), one.digest)

    def tests(self, one: Finalist, seed: int) -> list[Item]:
        """What was measured of a final run on the held-out split, now on the test split; nothing if it diverged."""
        file = self.final_item(one, seed).path(self.runs) / "record.json"
        rows = json.loads(file.read_text())["evals"] if file.exists() else []
        ids = tuple(dict.fromkeys(row["protocol"] for row in rows))
        if not ids:
            return []
        return [Item(self.study.recipe, seed, one.overrides, one.digest, "evaluate", ids)]

    def all_done(self, items: list[Item]) -> bool:
        """Whether all are at an end; those that are not get a slot."""
        left = [item for item in items if item not in self.given_up and not states.done(item, self.runs)]
        self.slots.want(left)
        return not left


def code_of(study: Study, runs: Path) -> Path:
    """The snapshot that all runs of the study use, taken when it began."""
    file = study.folder(runs) / "code"
    if file.exists() and (taken := Path(file.read_text().strip())).is_dir():
        return taken
    taken = snapshot.take(runs)
    write_atomically(file, f"{taken}\n".encode())
    return taken


def line(study: Study, trial: Trial, trials: Mapping[int, Trial]) -> str:
    """What is printed of a trial at its end."""
    told = sum(bool(one.outcome) for one in trials.values())
    best = selection.ranked(list(trials.values()))[:1]
    settings = studies.spell(trial.params)
    value = f" {trial.value:.2f}" if trial.value is not None else ""
    why = f" ({trial.why})" if trial.why and trial.outcome != "complete" else ""
    top = f"; best {best[0].value:.2f} of trial {best[0].number}" if best else ""
    return f"[{told}/{study.trials}] trial {trial.number} {trial.outcome}{value}{why}: {settings}{top}"
