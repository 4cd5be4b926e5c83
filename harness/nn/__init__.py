"""What several papers share: heads, teachers, schedules, collectives, latent pairs. Methods build on this and `harness.api`."""

from harness.nn.collectives import all_gather, all_mean, all_sum, rank, world_size
from harness.nn.heads import mlp
from harness.nn.schedules import cosine, linear, warmup_cosine
from harness.nn.teacher import Teacher

__all__ = [
    "Teacher",
    "all_gather",
    "all_mean",
    "all_sum",
    "cosine",
    "linear",
    "mlp",
    "rank",
    "warmup_cosine",
    "world_size",
]
