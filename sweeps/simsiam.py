"""SimSiam recipes: digits, what its paper takes away, and the VICReg paper's Table 4, on digits."""

from dataclasses import replace
from typing import Any

from harness.recipe import Recipe
from methods import simsiam
from sweeps import _bases


def simsiam_digits_r10w16_e50() -> Recipe:
    """Projector 256-256-64, predictor with a bottleneck of 32. VICReg's Table 4: SG, PR, BN, no regularisation."""
    return _variant()


def simsiam_digits_r10w16_e50_nosg() -> Recipe:
    """Without stop-gradient (SimSiam's Fig. 2)."""
    return _variant(stop_gradient=False)


def simsiam_digits_r10w16_e50_nopr() -> Recipe:
    """Without predictor (SimSiam's Table 1 a)."""
    return _variant(predictor=False)


def simsiam_digits_r10w16_e50_var() -> Recipe:
    """VICReg's Table 4: SG, PR, BN, variance."""
    return _variant(variance=1.0)


def simsiam_digits_r10w16_e50_varcov() -> Recipe:
    """VICReg's Table 4: SG, PR, BN, variance and covariance."""
    return _variant(variance=1.0, covariance=0.01)


def simsiam_digits_r10w16_e50_nobn() -> Recipe:
    """Without batch norm in the heads (SimSiam's Table 3 a). VICReg's Table 4: SG, PR, no regularisation."""
    return _variant(norm=False)


def simsiam_digits_r10w16_e50_nobn_var() -> Recipe:
    """VICReg's Table 4: SG, PR, variance."""
    return _variant(norm=False, variance=1.0)


def simsiam_digits_r10w16_e50_nobn_varcov() -> Recipe:
    """VICReg's Table 4: SG, PR, variance and covariance."""
    return _variant(norm=False, variance=1.0, covariance=0.01)


def simsiam_digits_r10w16_e50_nobn_nopr() -> Recipe:
    """VICReg's Table 4: SG alone, no regularisation."""
    return _variant(norm=False, predictor=False)


def simsiam_digits_r10w16_e50_nobn_nopr_var() -> Recipe:
    """VICReg's Table 4: SG alone, variance."""
    return _variant(norm=False, predictor=False, variance=1.0)


def simsiam_digits_r10w16_e50_nobn_nopr_varcov() -> Recipe:
    """VICReg's Table 4: SG alone, variance and covariance."""
    return _variant(norm=False, predictor=False, variance=1.0, covariance=0.01)


def _variant(**changes: Any) -> Recipe:
    return _bases.digits(replace(simsiam.Config(widths=(256, 256, 64), bottleneck=32), **changes), lr=2e-3)
