"""AdaSSL recipes, on pairs at a known latent change."""

from harness.recipe import Recipe
from methods import adassl, byol, simclr
from sweeps import _bases

SIMCLR = simclr.Config(widths=(128, 16), last_bias=False, temperature=0.05, clamp=20.0)
BYOL = byol.Config(widths=(128, 16), momentum=0.97, distance=1.0)


def adassl_v_simclr_factors_r10w16_e10() -> Recipe:
    """V over SimCLR, 3DIdent setting: linear editor, beta 0.5 after a warm-up (here 40 of 160 steps)."""
    return _bases.factors(adassl.Config(base=SIMCLR, variant="v", beta_warmup=40))


def adassl_s_simclr_factors_r10w16_e10() -> Recipe:
    """S over SimCLR, 3DIdent setting: rank-1 editors, beta 0.5, no warm-up."""
    return _bases.factors(adassl.Config(base=SIMCLR, variant="s"))


def adassl_v_byol_factors_r10w16_e10() -> Recipe:
    """V over BYOL."""
    return _bases.factors(adassl.Config(base=BYOL, variant="v", beta_warmup=40))


def adassl_s_byol_factors_r10w16_e10() -> Recipe:
    """S over BYOL."""
    return _bases.factors(adassl.Config(base=BYOL, variant="s"))
