"""Every error a user can cause, as one tree. The command line prints them in one line and never a traceback.

HarnessError            exit code 2
├── BadCommand          a command line that lacks something
├── UnknownName         a method, recipe, protocol, data set or override that does not exist
├── BadRecipe           a recipe that contradicts itself or its method
├── BadClaim            a claims file with a wrong field
├── BadRecord           runs that cannot be promoted, or a promoted record that was changed
├── DataMissing         a data set that is neither at the data root nor on the hub
├── DataMismatch        a data set whose content is not the pinned one
├── BadCheckpoint       no checkpoint of the run can be read
├── RunConflict         a run directory that belongs to another recipe or to a live process
│   ├── Held            another live process writes it
│   └── LeaseLost       another process has taken it over
├── NotWritable         a directory that cannot be written, or a full disk
├── Unavailable         a service or program that is not there (database, SLURM)
├── BadProfile          a cluster profile with a wrong setting
├── Refused             a submission that the cluster or its limits do not allow
└── RunFailed           a run that diverged, collapsed or crashed (exit code 3)
    └── Interrupted     a run that was asked to stop and wrote a checkpoint first

A message says what, where and what was expected, then the nearest name or how to fix it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class HarnessError(Exception):
    exit_code = 2


class UnknownName(HarnessError):
    def __init__(self, kind: str, name: str, known: Iterable[str], fix: str = "") -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.5) or [one for one in known if one.startswith(name)]
        few = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        hint = f"did you mean {near[0]!r}?" if near else f"known: {few or 'none'}"
        super().__init__(f"no {kind} {name!r}; {hint}" + (f"; {fix}" if fix else ""))


class BadCommand(HarnessError):
    pass


class BadRecipe(HarnessError):
    pass


class BadClaim(HarnessError):
    pass


class BadRecord(HarnessError):
    pass


class DataMissing(HarnessError):
    pass


class DataMismatch(HarnessError):
    pass


class BadCheckpoint(HarnessError):
    pass


class RunConflict(HarnessError):
    pass


class Held(RunConflict):
    """owner: what the other process says of itself."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        self.owner = owner
        job = f" of job {owner['job']}" if owner.get("job") else ""
        where = f"process {owner.get('pid')}{job} on {owner.get('node') or owner.get('host')}"
        super().__init__(f"{path} is being written by another process ({where}); wait for it, or stop it")


class LeaseLost(RunConflict):
    pass


class NotWritable(HarnessError):
    pass


class Unavailable(HarnessError):
    pass


class BadProfile(HarnessError):
    pass


class Refused(HarnessError):
    pass


class RunFailed(HarnessError):
    exit_code = 3


class Interrupted(RunFailed):
    pass
