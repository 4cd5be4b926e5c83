"""BYOL recipes."""

from harness.recipe import Recipe
from methods import byol
from sweeps import _bases


def byol_digits_r10w16_e60() -> Recipe:
    """Heads 256-64; the target follows faster than the paper's, for 540 steps."""
    return _bases.digits(byol.Config(widths=(256, 64), momentum=0.97))


def byol_factors_r10w16_e10() -> Recipe:
    """BYOL as under AdaSSL (distance 1 - cos), heads 128-16."""
    return _bases.factors(byol.Config(widths=(128, 16), momentum=0.97, distance=1.0))
