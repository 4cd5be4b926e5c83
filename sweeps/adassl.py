"""AdaSSL recipes, on pairs at a known latent change, and on pairs by augmentation."""

from dataclasses import replace

from harness.recipe import Recipe
from methods import adassl, byol, simclr
from sweeps import _bases
from sweeps import simclr as sweeps_simclr

SIMCLR = simclr.Config(widths=(128, 16), last_bias=False, temperature=0.05, clamp=20.0)
BYOL = byol.Config(widths=(256, 64), momentum=0.98, distance=1.0)


def adassl_v_simclr_factors_r10w16_e4() -> Recipe:
    """V over SimCLR: linear editor, beta 0.1 after a warm-up of 16 of the 64 steps.

    3DIdent has beta 0.5 and 150,000 steps; after 96 steps that had learned nothing (held-out r2 0.27, untrained 0.29;
    with 0.1 it was 0.62).
    """
    return _bases.factors(adassl.Config(base=SIMCLR, variant="v", beta=0.1, beta_warmup=16))


def adassl_s_simclr_factors_r10w16_e4() -> Recipe:
    """S over SimCLR, 3DIdent setting: rank-1 editors, beta 0.5, no warm-up."""
    return _bases.factors(adassl.Config(base=SIMCLR, variant="s"))


def adassl_v_simclr_factors_r10w16_e4_additive() -> Recipe:
    """`adassl_v_simclr_factors_r10w16_e4` with the additive editor in place of the linear one."""
    return _bases.factors(adassl.Config(base=SIMCLR, variant="v", beta=0.1, beta_warmup=16, editor="additive"))


def adassl_v_byol_factors_r10w16_e4() -> Recipe:
    """V over BYOL, beta as over SimCLR."""
    return _bases.factors(adassl.Config(base=BYOL, variant="v", beta=0.1, beta_warmup=16), lr=2e-3)


def adassl_s_byol_factors_r10w16_e4() -> Recipe:
    """S over BYOL."""
    return _bases.factors(adassl.Config(base=BYOL, variant="s"), lr=2e-3)


def adassl_s_simclr_cifar10_r18_e200() -> Recipe:
    """S over `simclr_cifar10_r18_e200`, from which it differs in the latent alone: CIFAR-10 in pairs by augmentation.

    Latent and its network as for CelebA (20; 1024 hidden), rank-1 editors, beta 0.5, no warm-up. Ours: CIFAR-10, where
    the latent has only the augmentation to explain, and LARS for the whole (AdaSSL trains by AdamW at a constant rate).
    Not trained yet.
    """
    base = sweeps_simclr.simclr_cifar10_r18_e200()
    return replace(base, method=adassl.Config(base=base.method, variant="s", latent=20, hidden=(1024,)))


def adassl_s_simclr_cifar10_r18_e200_bf16() -> Recipe:
    """`adassl_s_simclr_cifar10_r18_e200` in bfloat16. Not trained yet."""
    return _bases.bf16(adassl_s_simclr_cifar10_r18_e200())
