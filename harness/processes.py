"""What the processes of one run do together. Rank 0 alone writes; what it finds, and what stops it, all of them learn.

Nothing here starts or ends a process group; that is the launcher's business. With one process each of these is the
plain thing, without a collective.

Only a HarnessError of `first` reaches the others. Whatever else breaks one process leaves the rest in a collective,
which ends when the launcher ends the job, or at the group's timeout.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.api import Batch, Method, Step
from harness.errors import HarnessError
from harness.nn import all_mean, rank, world_size
from harness.runs import RunDirectory

T = TypeVar("T")


def first(work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, told to every process; a HarnessError of it is raised on every process."""
    if world_size() == 1:
        return work()
    told: list[Any] = [None, None, ""]
    if rank() == 0:
        try:
            told[0] = work()
        except HarnessError as error:
            told[1:] = type(error), str(error)
    dist.broadcast_object_list(told)
    value, kind, message = told
    if kind is not None:
        raise kind.__new__(kind, message)  # not kind(message): some kinds are made of other arguments
    return value


@contextmanager
def held_by_first(manager: AbstractContextManager[Any]) -> Iterator[None]:
    """Only rank 0 enters, and none goes on before it has. Errors: those of entering, on every process."""
    with ExitStack() as stack:

        def enter() -> None:  # what entering gives stays on rank 0
            stack.enter_context(manager)

        first(enter)
        yield


def means(values: dict[str, Tensor], device: torch.device | str) -> dict[str, float]:
    """Scalars, each averaged over the processes in float64; one reduction, on `device`, for all of them."""
    if world_size() == 1 or not values:
        return {name: float(value.detach()) for name, value in values.items()}
    stacked = torch.stack([value.detach().to(device, torch.float64) for value in values.values()])
    return dict(zip(values, all_mean(stacked).tolist(), strict=True))


def any_of(words: Sequence[str]) -> str:
    """The first word of the lowest rank that has one, "" if none has; every process learns the same."""
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, list(words[:1]))
    return next((word for own in found for word in own), "")


def in_turn(make: Callable[[int], T], count: int) -> list[T]:
    """[make(0), ..., make(count - 1)] on rank 0, [] elsewhere; of W processes, rank r makes r, r + W, r + 2 W, ..."""
    if world_size() == 1:
        return [make(number) for number in range(count)]
    made: list[Any] = []
    for start in range(0, count, world_size()):  # round by round: what is under way fits the memory of a device
        number = start + rank()
        found = [None] * world_size() if rank() == 0 else None
        dist.gather_object(make(number) if number < count else None, found)
        made += found or []
    return made[:count]


class _Forward(nn.Module):
    """A method's step as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, method: Method[Any]) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> Step:
        """The step with nothing but its loss attached to the graph: DDP waits for every parameter it can reach."""
        out = self.method.step(batch)
        terms = {name: value.detach() for name, value in out.terms.items()}
        diagnostics = {name: value.detach() for name, value in out.diagnostics.items()}
        return Step(out.loss, terms, out.features.detach(), out.embedding.detach(), diagnostics)


def parallel(method: Method[Any]) -> Callable[[Batch], Step]:
    """`method.step` whose backward pass averages the gradients over the processes.

    Buffers are not sent: they are functions of the joined batch, so equal on all. With `find_unused_parameters` DDP
    keeps its first layout of buckets; torch's warning that it found none unused is expected. Without it, DDP lays them
    out anew after its first backward pass, at another step in a resumed run than in an uninterrupted one, and a ring of
    three or more processes adds in an order that depends on the layout.
    """
    with warnings.catch_warnings():  # torch 2.13 has a new name for broadcast_buffers, which 2.6 does not know
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            _Forward(method), broadcast_buffers=False, find_unused_parameters=True
        )


class Follower(RunDirectory):
    """The run directory of a process that is not rank 0: it writes nothing."""

    def append(self, file: str, line: dict[str, Any]) -> None:
        pass

    def write_record(self, record: dict[str, Any]) -> None:
        pass

    def forget(self) -> None:
        pass
