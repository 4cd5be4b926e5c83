"""Controls: the network as initialised, and the pixels themselves."""

from dataclasses import replace

from harness.evals import factor_regression
from harness.recipe import Budget, Recipe
from methods import untrained
from sweeps import _bases


def untrained_digits_r10w16_e0() -> Recipe:
    """What the network gives before any training."""
    return _control(_bases.digits(untrained.Config()))


def untrained_digits_pixels_e0() -> Recipe:
    """What the images give without a network."""
    return replace(_control(_bases.digits(untrained.Config())), encoder=_bases.PIXELS)


def untrained_factors_r10w16_e0() -> Recipe:
    """What the network gives before any training."""
    return _control(_bases.factors(untrained.Config()))


def untrained_factors_pixels_e0() -> Recipe:
    """What the images give without a network; without DCI, which is slow for 768 pixels."""
    evals = (factor_regression.Config(disentanglement=False), *_bases.FACTORS[1:])
    return replace(_control(_bases.factors(untrained.Config())), encoder=_bases.PIXELS, evals=evals)


def untrained_sphere_pixels_e0() -> Recipe:
    """What the mixing network leaves of the latents: the observations themselves."""
    return replace(_control(_bases.sphere(untrained.Config(), pairs="augmentation", steps=1)), encoder=_bases.PIXELS)


def _control(recipe: Recipe) -> Recipe:
    return replace(recipe, budget=Budget(epochs=0, batch=recipe.budget.batch), views=())
