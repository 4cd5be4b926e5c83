"""Untrained: the encoder as it was initialised, the control of every table.

Paper    none: a control of ours, not a method.
Loss     none.
Oracle   none: there is no loss.
Departs  nothing.
Shapes   none: it sees no view.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.api import Backbone, Batch, Method, MethodConfig, Requirements, Step, TrainSet


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    title: ClassVar[str] = "Untrained"

    def requirements(self) -> Requirements:
        return Requirements(views=(), sources=(), min_batch=1)

    def build(self, backbone: Backbone, train: TrainSet) -> "Untrained":
        return Untrained(self, backbone)


class Untrained(Method[Config]):
    def step(self, batch: Batch) -> Step:
        raise RuntimeError("Untrained is a control without a loss; give its recipe budget.epochs = 0")
