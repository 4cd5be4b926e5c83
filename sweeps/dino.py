"""DINO recipes."""

from harness.recipe import Recipe
from methods import dino
from sweeps import _bases


def dino_digits_r10w16_e60() -> Recipe:
    """Two global and two local crops; 256 prototypes, and a teacher fast enough for 540 steps."""
    return _bases.digits(
        dino.Config(out_dim=256, hidden=256, bottleneck=64, teacher_momentum=0.98, use_bn=True), local_crops=2
    )
