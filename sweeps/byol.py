"""BYOL recipes."""

from harness.recipe import Recipe
from methods import byol
from sweeps import _bases


def byol_digits_r10w16_e50() -> Recipe:
    """Heads 256-64; the target follows faster than the paper's (0.9 for 0.996), for 450 steps."""
    return _bases.digits(byol.Config(widths=(256, 64), momentum=0.9), lr=2e-3)


def byol_factors_r10w16_e4() -> Recipe:
    """BYOL as under AdaSSL (distance 1 - cos), heads 256-64, a target fast enough for 64 steps."""
    return _bases.factors(byol.Config(widths=(256, 64), momentum=0.98, distance=1.0), lr=2e-3)
