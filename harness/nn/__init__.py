"""What several papers share: heads, teachers, queues, schedules, collectives. Methods use this and `harness.api`."""

from harness.nn.accumulation import in_parts
from harness.nn.collectives import all_gather, all_mean, all_sum, rank, world_size
from harness.nn.heads import UnitLinear, mlp
from harness.nn.moments import RunningMean
from harness.nn.multicrop import multi_crop
from harness.nn.precision import full_precision
from harness.nn.queue import RingQueue
from harness.nn.schedules import cosine, linear, warmup_cosine
from harness.nn.spread import hinge_std, off_diagonal_energy
from harness.nn.teacher import Average, Teacher

__all__ = [
    "Average",
    "RingQueue",
    "RunningMean",
    "Teacher",
    "UnitLinear",
    "all_gather",
    "all_mean",
    "all_sum",
    "cosine",
    "full_precision",
    "hinge_std",
    "in_parts",
    "linear",
    "mlp",
    "multi_crop",
    "off_diagonal_energy",
    "rank",
    "warmup_cosine",
    "world_size",
]
