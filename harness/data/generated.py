"""Data sets that are made, not read: rendered shapes and vectors on a sphere, from pinned random numbers."""

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import factors, sphere, tables
from harness.data.images import Images
from harness.data.sets import FACTORS_SIZE, GENERATED, SPHERE_SIZE
from harness.errors import DataMismatch


def rendered(px: int) -> tuple[Images, ...]:
    size = (sum(FACTORS_SIZE.values()), len(factors.LATENTS))
    latents = _checked("factors", np.random.default_rng(0).random(size, dtype=np.float32))
    return tuple(
        Images(
            pixels=factors.render(part, px),
            labels=factors.shape_of(part),
            factors=factors.factors_of(part),
            factor_names=factors.FACTORS,
            latents=part,
        )
        for part in latents.split(list(FACTORS_SIZE.values()))
    )


def drawn() -> tuple[Images, ...]:
    size = (sum(SPHERE_SIZE.values()), sphere.WIDTH)
    numbers = _checked("sphere", np.random.default_rng(0).standard_normal(size, dtype=np.float32))
    return tuple(
        Images(
            pixels=sphere.observe(part),
            labels=torch.zeros(len(part), dtype=torch.int64),
            factors=part,
            factor_names=sphere.FACTORS,
            latents=part,
        )
        for part in F.normalize(numbers, dim=1).split(list(SPHERE_SIZE.values()))
    )


def _checked(name: str, numbers: Any) -> Tensor:
    """Random numbers of a generated set. Errors: DataMismatch."""
    got = hashlib.sha256(numbers.tobytes()).hexdigest()
    if got != GENERATED[name]:
        raise DataMismatch(tables.differs(name, "numpy's random numbers", GENERATED[name], got))
    return torch.from_numpy(numbers)
