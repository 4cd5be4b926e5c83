"""AnInfoNCE recipes: its published trajectory, cut at steps that its logs print.

brendel-group/AnInfoNCE@c6907e5, training_logs/: one run with Lambda 25 and 5, half of the latents each (bimodal), and
one with Lambda from 5 to 25 in equal steps (linear). A thousand steps take about 3 minutes on one CPU core.
"""

from harness.recipe import Recipe
from methods import aninfonce
from sweeps import _bases

ANINFONCE = aninfonce.Config()


def aninfonce_sphere_mlp_s1_bimodal() -> Recipe:
    """The logs' first line, after one step."""
    return _bases.sphere(ANINFONCE, pairs="bimodal_noise", steps=1)


def aninfonce_sphere_mlp_s1_linear() -> Recipe:
    """The logs' first line, after one step."""
    return _bases.sphere(ANINFONCE, pairs="linear_noise", steps=1)


def aninfonce_sphere_mlp_s1001_bimodal() -> Recipe:
    """Lambda 25 and 5, the first 1,001 of 100,001 steps."""
    return _bases.sphere(ANINFONCE, pairs="bimodal_noise", steps=1001)


def aninfonce_sphere_mlp_s1001_linear() -> Recipe:
    """Lambda 5 to 25, the first 1,001 of 100,001 steps."""
    return _bases.sphere(ANINFONCE, pairs="linear_noise", steps=1001)


def aninfonce_sphere_mlp_s5001_bimodal() -> Recipe:
    """Lambda 25 and 5, the first 5,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="bimodal_noise", steps=5001)


def aninfonce_sphere_mlp_s5001_linear() -> Recipe:
    """Lambda 5 to 25, the first 5,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="linear_noise", steps=5001)


def aninfonce_sphere_mlp_s10001_bimodal() -> Recipe:
    """Lambda 25 and 5, the first 10,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="bimodal_noise", steps=10001)


def aninfonce_sphere_mlp_s10001_linear() -> Recipe:
    """Lambda 5 to 25, the first 10,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="linear_noise", steps=10001)


def aninfonce_sphere_mlp_s20001_bimodal() -> Recipe:
    """Lambda 25 and 5, the first 20,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="bimodal_noise", steps=20001)


def aninfonce_sphere_mlp_s20001_linear() -> Recipe:
    """Lambda 5 to 25, the first 20,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="linear_noise", steps=20001)


def aninfonce_sphere_mlp_s50001_bimodal() -> Recipe:
    """Lambda 25 and 5, the first 50,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="bimodal_noise", steps=50001)


def aninfonce_sphere_mlp_s50001_linear() -> Recipe:
    """Lambda 5 to 25, the first 50,001 of 100,001 steps. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="linear_noise", steps=50001)


def aninfonce_sphere_mlp_s100001_bimodal() -> Recipe:
    """Lambda 25 and 5, the whole run. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="bimodal_noise", steps=100001)


def aninfonce_sphere_mlp_s100001_linear() -> Recipe:
    """Lambda 5 to 25, the whole run. Not trained yet."""
    return _bases.sphere(ANINFONCE, pairs="linear_noise", steps=100001)


def aninfonce_sphere_mlp_s5001_infonce() -> Recipe:
    """InfoNCE at temperature 1 (the oracle's --tau) on the pairs of `bimodal`: what one sharpness for all recovers.

    Not trained yet.
    """
    return _bases.sphere(aninfonce.Config(temperature=1.0), pairs="bimodal_noise", steps=5001)
