"""SSL-HSIC recipes."""

from harness.recipe import Recipe
from methods import ssl_hsic
from sweeps import _bases


def ssl_hsic_digits_r10w16_e50() -> Recipe:
    """With target, gamma 3; heads 256-64, 256 random features (the paper: 512)."""
    return _bases.digits(ssl_hsic.Config(widths=(256, 64), features=256, eval_decay=0.98), lr=1e-2)


def ssl_hsic_digits_r10w16_e50_notarget() -> Recipe:
    """Without target network: two online views."""
    return _bases.digits(ssl_hsic.Config(with_target=False, widths=(256, 64), features=256, eval_decay=0.98), lr=1e-2)
