"""Ways to evaluate frozen features. A file is a protocol: a frozen `Config`, `check`, `run` and `UNITS`.

`check(config, train, classes)` raises BadRecipe if the protocol cannot be used on such a train split. A file whose
protocol needs classes says how many in `MIN_CLASSES`.
`run(config, features, split)` yields (metric, value). It fits on train; whatever it selects, it selects on held_out, so
a held-out value may be the best of several and the test value never is.
A metric is a name, or name/part for one of several parts; `UNITS` gives the unit by the name. Of an accuracy of one
classifier (`features.Accuracy`) the record keeps as `correct` which images it got right (harness/predictions.py).
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from harness.data import Splits
from harness.errors import BadRecipe
from harness.features import Accuracy, Features
from harness.predictions import pack
from harness.recipe import ProtocolConfig, to_data


def check(protocols: Sequence[ProtocolConfig], data: Splits | Features) -> None:
    """Refuse protocols that cannot be used on this data set; worth calling before training. Errors: BadRecipe."""
    for config in protocols:
        module = _module(config)
        if data.classes < getattr(module, "MIN_CLASSES", 1):
            raise BadRecipe(
                f"{config.id}: the data set has {data.classes} class, at least {module.MIN_CLASSES} are needed; drop "
                "this protocol"
            )
        module.check(config, data.train, data.classes)


def evaluate(
    protocols: Sequence[ProtocolConfig],
    features: Features,
    splits: Sequence[str] = ("held_out", "test"),
    *,
    network: str,
    layer: str = "backbone",
) -> list[dict[str, Any]]:
    """One JSON-ready record per protocol and split.

    network: whose features these are, "student", "teacher" or "ema"; layer: where they were taken.
    Errors: BadRecipe, UnknownName.
    """
    check(protocols, features)
    records = []
    for config in protocols:
        module = _module(config)
        settings = {key: value for key, value in to_data(config).items() if key != "name"}
        for split in splits:
            n = len(features.table(split).labels)
            found = dict(module.run(config, features, split))
            correct = {m: pack(value.correct.numpy()) for m, value in found.items() if isinstance(value, Accuracy)}
            records.append(
                {
                    "protocol": config.id,
                    "split": split,
                    "network": network,
                    "layer": layer,
                    "n": n,
                    "metrics": {metric: float(value) for metric, value in found.items()},
                    "units": {metric: module.UNITS[metric.split("/")[0]] for metric in found},
                    "settings": settings,
                }
                | ({"correct": correct} if correct else {})
            )
    return records


def _module(config: ProtocolConfig) -> ModuleType:
    return sys.modules[type(config).__module__]
