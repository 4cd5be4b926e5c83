"""Costs against known numbers and hand counts."""

from dataclasses import replace
from functools import cache
from statistics import median

import pytest

from harness import cost, data, registry
from harness.errors import BadRecipe
from harness.recipe import Encoder, Recipe

DIGITS = registry.recipe("vicreg_digits_r10w16_e50")
TIMINGS = cost.timings(registry.ROOT / "results" / "timings.toml")


@cache
def of(name: str) -> cost.Cost:
    return cost.of(registry.recipe(name))


def on(recipe: Recipe, encoder: Encoder) -> cost.Cost:
    return cost.of(replace(recipe, encoder=encoder))


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("vicreg_imagenet_1k_r50_e100", 23_508_032, 4.1),
        ("dino_imagenet_1k_vits16_e100", 21_665_664, 4.6),
        ("dino_imagenet_1k_vitb16_e400", 85_798_656, 17.6),
    ],
)
def test_encoders_have_the_known_sizes(name: str, parameters: int, gmacs: float) -> None:
    """Multiply-adds as the papers count them (ResNet-50: 4.1e9; DeiT-S: 4.6e9; ViT-B: 17.6e9); parameters of timm."""
    found = of(name)
    assert found.encoder_parameters == parameters
    assert found.encoder_flops == pytest.approx(2e9 * gmacs, rel=0.01)


def test_a_step_is_the_sum_of_its_products() -> None:
    """Pixels as the encoder: what is left is VICReg's expander and its covariance, counted by hand."""
    N, D = 128, 256
    found = on(replace(DIGITS, budget=replace(DIGITS.budget, batch=N)), Encoder(name="pixels"))
    layers = [(192, D), (D, D), (D, D)]
    forward = sum(2 * N * a * b for a, b in layers)
    backward = sum(2 * 2 * N * a * b for a, b in layers) - 2 * N * 192 * D  # the images have no gradient
    covariance = 3 * 2 * N * N * D  # N < D: one N x N product, and two products backward
    assert found.step_flops == 2 * (forward + backward + covariance)
    assert found.encoder_flops == found.encoder_parameters == 0
    assert found.trained_parameters == sum((a + 1) * b for a, b in layers) - D + 2 * 2 * D  # last without bias; norms


def test_a_teacher_costs_a_forward_pass_of_each_global_crop() -> None:
    """Of DINO with 2 + 8 crops on ViT-S/16: 2 forward passes of the teacher, 3 of the student's each way, heads."""
    found = of("dino_imagenet_1k_vits16_e100")
    crops = of("dino_imagenet_1k_vits16_e100_10x96").image_flops - found.image_flops
    small = crops / 2
    two = of("dino_imagenet_1k_vits16_e100_2x224").image_flops
    assert found.image_flops == pytest.approx(two + 8 * small, rel=1e-6)
    assert two / found.encoder_flops == pytest.approx(2 * 3 + 2, rel=0.01)


def test_totals_are_steps_of_whole_batches() -> None:
    found = of("vicreg_imagenet_1k_r50_e100")
    assert found.steps == 100 * (1_281_167 // 2048) == 62_500
    assert found.total_flops == found.step_flops * 62_500
    assert found.gpu_hours(10.0) == pytest.approx(found.total_flops / 1e13 / 3600)
    assert found.to_data(10.0)["gpu_hours"] == found.gpu_hours(10.0)
    assert found.image_flops == found.step_flops / 2048


def test_a_budget_in_steps_and_vectors_are_counted_as_they_are() -> None:
    found = of("aninfonce_sphere_mlp_s5001_bimodal")
    assert found.steps == 5001
    assert found.encoder_flops == 2 * (10 * 100 + 100 * 500 + 3 * 500 * 500 + 500 * 100 + 100 * 10)


def test_every_method_can_be_counted() -> None:
    names = reversed(registry.recipe_names())  # so that each method's first one stays, the smallest
    for name in {registry.recipe(name).resolved()["method"]["name"]: name for name in names}.values():
        trained = registry.recipe(name).budget.epochs > 0
        assert (of(name).step_flops > 0) == (of(name).total_flops > 0) == trained, name


def test_a_recipe_without_training_costs_nothing() -> None:
    found = of("untrained_digits_r10w16_e0")
    assert (found.steps, found.step_flops, found.gpu_hours(1.0)) == (0, 0, 0.0)
    assert found.encoder_flops > 0


def test_the_default_rate_is_the_median_of_published_timings() -> None:
    rates = [one.tflops(of(one.recipe)) for one in TIMINGS]
    assert round(median(rates)) == cost.TFLOPS
    assert 5 < min(rates) < max(rates) < 14  # the range that sweeps/README.md states
    for one in TIMINGS:
        recipe = registry.recipe(one.recipe)
        assert one.epochs == recipe.budget.epochs
        assert one.images in (data.train_size(recipe.data), 50_000)  # we hold 5,000 of CIFAR out


def test_a_network_that_the_options_do_not_fit_is_refused() -> None:
    with pytest.raises(BadRecipe, match="takes several sizes with the option dynamic_img_size=True"):
        on(registry.recipe("dino_imagenet_1k_vits16_e100"), Encoder(name="vit_small_patch16_224"))
