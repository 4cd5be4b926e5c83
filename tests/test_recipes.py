"""Recipes: all of them build and are consistent; names, digests, overrides and refusals."""

from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from contracts import recipe_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import registry
from harness.api import Requirements
from harness.errors import BadRecipe, UnknownName
from harness.recipe import UNSHAPING, Encoder, Recipe, check
from methods import untrained

NAMES = sorted(registry.recipe_names())
ONE = "vicreg_digits_r10w16_e50"


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_whole_and_named_after_its_parts(name: str) -> None:
    recipe = registry.recipe(name)
    assert recipe.name == name
    assert recipe.data.name in name
    assert (f"_s{recipe.budget.steps}" if recipe.budget.steps else f"_e{recipe.budget.epochs}") in name
    assert recipe.evals
    getter = getattr(registry.load("sweeps", registry.recipe_names()[name]), name)
    assert getter.__doc__, "a recipe says what it follows"


def test_published_recipes_are_not_edited(request: pytest.FixtureRequest) -> None:
    """tests/golden/digests.txt holds the digest of each; `--write-golden` adds new recipes and changes no line."""
    file = Path(__file__).parent / "golden" / "digests.txt"
    published = dict(line.split() for line in file.read_text().splitlines())
    found = {name: registry.recipe(name).digest for name in NAMES}
    assert {name: found.get(name) for name in published} == published
    if request.config.getoption("--write-golden"):
        file.write_text("".join(f"{name} {digest}\n" for name, digest in sorted(found.items())))


def test_digests_are_distinct() -> None:
    assert len({registry.recipe(name).digest for name in NAMES}) == len(NAMES)


def leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    if is_dataclass(node):
        return [
            leaf for f in fields(node) for leaf in leaves(getattr(node, f.name), f"{path}.{f.name}" if path else f.name)
        ]
    if isinstance(node, tuple):
        return [leaf for i, item in enumerate(node) for leaf in leaves(item, f"{path}.{i}")]
    return [(path, node)]


NUMBERS = [
    path
    for path, value in leaves(registry.recipe(ONE))
    if isinstance(value, float | int) and not isinstance(value, bool) and not path.startswith(UNSHAPING)
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NUMBERS), st.integers(1, 7))
def test_every_number_of_a_recipe_changes_its_digest(path: str, by: int) -> None:
    before = registry.recipe(ONE)
    value = dict(leaves(before))[path]
    after = registry.override(before, f"{path}={value + by}")
    assert after.digest != before.digest
    assert registry.override(after, f"{path}={value}").digest == before.digest


def test_name_and_evaluations_do_not_change_the_digest() -> None:
    recipe = registry.recipe(ONE)
    assert replace(recipe, name="other", evals=()).digest == recipe.digest


def test_recipes_are_frozen_all_the_way() -> None:
    recipe = registry.recipe(ONE)
    with pytest.raises(FrozenInstanceError):
        recipe.budget.epochs = 3  # type: ignore[misc]
    for path, value in leaves(recipe):
        assert value is None or isinstance(value, bool | int | float | str), path


def test_an_override_that_changes_nothing_is_none() -> None:
    plain = registry.recipe(ONE)
    assert registry.recipe(ONE, (f"optimiser.lr={plain.optimiser.lr}",)) == plain


def test_a_label_for_tables_does_not_change_the_digest() -> None:
    recipe = registry.recipe(ONE)
    assert replace(recipe, encoder=replace(recipe.encoder, label="another")).digest == recipe.digest


def test_overrides_are_stored() -> None:
    recipe = registry.recipe(ONE, ("optimiser.lr=1", "views.0.flip=0.5", "data.train_images=200"))
    assert recipe.optimiser.lr == 1.0
    assert isinstance(recipe.optimiser.lr, float)
    assert recipe.views[0].flip == 0.5
    assert recipe.data.train_images == 200
    assert recipe.overrides == ("optimiser.lr=1", "views.0.flip=0.5", "data.train_images=200")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("optimiser.lt=1", UnknownName, r"no setting 'lt'; did you mean 'lr'\?; in override 'optimiser.lt=1'"),
        ("optimizer.lr=1", UnknownName, r"no setting 'optimizer'; did you mean 'optimiser'\?"),
        ("views.7.flip=1", UnknownName, "no position '7'; known: 0, 1"),
        ("optimiser.lr", BadRecipe, "not of the form path=value"),
        ("optimiser.lr=fast", BadRecipe, r"override 'optimiser.lr=fast': expected float \(now .*\), got 'fast'"),
        ("optimiser.clip_global=abc", BadRecipe, r"expected float \| None \(now None\), got 'abc'"),
        ("budget.epochs=None", BadRecipe, r"expected int \(now 50\), got None"),
        ("method.title=x", UnknownName, "no setting 'title'"),
        ("views.0=3", BadRecipe, "that is a group of settings"),
        ("evals.2.k=5", BadRecipe, "evaluations do not shape a run; `harness eval` adds to a finished one"),
        ("method.widths=(1.5,)", BadRecipe, "expected tuple"),
        ("budget.epochs=1.5", BadRecipe, "expected int"),
        ("name=x", BadRecipe, "not settings"),
        ("budget.warmup=99", BadRecipe, "warm-up of 99 epochs is longer than the run of 50; lower budget.warmup"),
        ("budget.batch=1", BadRecipe, "batch 1 is under the 2 that VICReg needs; raise budget.batch"),
        ("optimiser.name=lamb", BadRecipe, "optimiser.name is 'lamb', expected"),
        ("optimiser.lr=-1", BadRecipe, "optimiser.lr is -1.0, expected a number above 0"),
        ("optimiser.lr=1e999", BadRecipe, "optimiser.lr is inf, expected a number above 0"),
        ("budget.epochs=-1", BadRecipe, "budget.epochs is -1, expected 0 or more"),
        ("budget.steps=0", BadRecipe, "budget.steps is 0, expected 1 or more, or None for whole epochs"),
        ("views.0.px=0", BadRecipe, "views.0.px is 0, expected 1 or more"),
        ("views.1.flip=3.0", BadRecipe, "views.1.flip is 3.0, expected a probability, 0 to 1"),
        ("views.0.scale=(2.0, 1.0)", BadRecipe, r"views.0.scale is \(2.0, 1.0\), expected 0 < low <= high <= 1"),
        ("data.train_images=0", BadRecipe, "data.train_images is 0, expected images, or None for all"),
        ("method.widths=(0,)", BadRecipe, r"method.widths is \(0,\), expected one or more positive widths"),
        ("optimiser=3", BadRecipe, "that is a group of settings; give one of them, as in optimiser.lr=0.1"),
        ("views=None", BadRecipe, "that is a group of settings"),
        ("data.pairs=latent_change", BadRecipe, "data.pairs is 'latent_change', expected one that it has"),
    ],
)
def test_bad_overrides_are_one_clear_line(text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        registry.recipe(ONE, (text,))
    assert "\n" not in str(caught.value)


def test_views_that_the_method_cannot_use_are_refused() -> None:
    recipe = registry.recipe(ONE)
    with pytest.raises(
        BadRecipe, match=r"VICReg needs the views \[global of element 0, global of element 1\]; the recipe gives"
    ):
        check(replace(recipe, views=recipe.views[:1]))
    local = replace(recipe.views[0], role="local")
    with pytest.raises(BadRecipe, match="VICReg needs the views"):
        check(replace(recipe, views=(*recipe.views, local)))


def queue_of(name: str) -> int:
    """The queue of a recipe's method, 0 for none."""
    return registry.recipe(name).method.requirements().batch_divides or 0


@dataclass(frozen=True, kw_only=True)
class Asking(untrained.Config):
    """A method that has nothing but requirements."""

    title: ClassVar[str] = "Asking"
    needs: Requirements

    def requirements(self) -> Requirements:
        return self.needs


@pytest.mark.parametrize(
    ("needs", "recipe", "message"),
    [
        (
            Requirements(batch_divides=192),
            ONE,
            rf"recipe '{ONE}': batch 128 does not divide 192, the queue of Asking; change budget.batch or method.queue",
        ),
        (
            Requirements(batch_divisor=48),
            ONE,
            rf"recipe '{ONE}': batch 128 is not a multiple of 48, as Asking needs; change budget.batch",
        ),
        (
            Requirements(index=True),
            "aninfonce_sphere_mlp_s1001_bimodal",
            "Asking remembers images by their index, and data set 'sphere' draws its pairs anew in each step; "
            "use another data set",
        ),
        (
            Requirements(labels=True),
            "aninfonce_sphere_mlp_s1001_bimodal",
            r"Asking \(labels\) learns from labels, and data set 'sphere' has none",
        ),
        (
            Requirements(patches=True),
            ONE,
            "Asking treats the patch embedding of a ViT apart, and encoder 'resnet18_small_stem' has none; "
            "use a ViT, or turn that option of the method off",
        ),
    ],
)
def test_what_a_method_needs_and_a_recipe_does_not_offer(needs: Requirements, recipe: str, message: str) -> None:
    with pytest.raises(BadRecipe, match=message) as caught:
        check(replace(registry.recipe(recipe), method=Asking(needs=needs)))
    assert "\n" not in str(caught.value)


def test_what_a_method_needs_and_a_recipe_offers() -> None:
    recipe = registry.recipe(ONE)
    check(replace(recipe, method=Asking(needs=Requirements(batch_divides=256, batch_divisor=64, labels=True))))
    vit = Encoder(name="vit_tiny_patch16_224", options=(("img_size", 8), ("patch_size", 2)))
    check(replace(recipe, encoder=vit, method=Asking(needs=Requirements(patches=True, index=True))))


@pytest.mark.parametrize("name", [name for name in recipe_cases().values() if queue_of(name)])
def test_a_queue_takes_whole_batches(name: str) -> None:
    queue, label = queue_of(name) + 1, registry.recipe(name).method.label
    with pytest.raises(BadRecipe) as caught:
        registry.recipe(name, (f"method.queue={queue}",))
    assert str(caught.value) == (
        f"recipe {name!r}: batch 128 does not divide {queue}, the queue of {label}; change budget.batch or method.queue"
    )
    recipe = registry.recipe(name)
    check(replace(recipe, budget=replace(recipe.budget, batch=64)))


def test_vectors_are_not_augmented_and_take_no_image_network() -> None:
    recipe = registry.recipe("aninfonce_sphere_mlp_s1001_bimodal")
    where = r"recipe 'aninfonce_sphere_mlp_s1001_bimodal': data set 'sphere' holds vectors"
    with pytest.raises(BadRecipe, match=rf"{where}; encoder.name is 'resnet18', expected 'mlp' or 'pixels'"):
        check(replace(recipe, encoder=Encoder(name="resnet18")))
    for change in ({"px": 8}, {"scale": (0.1, 1.0)}, {"blur": 0.5}):
        views = (recipe.views[0], replace(recipe.views[1], **change))
        with pytest.raises(BadRecipe, match=rf"{where}; views.1 would change images, expected px=10, scale="):
            check(replace(recipe, views=views))


def test_steps_change_the_digest_and_their_absence_does_not() -> None:
    recipe = registry.recipe(ONE)
    assert recipe.digest == "35306d055183"  # as it was before `budget.steps` came
    assert replace(recipe, budget=replace(recipe.budget, steps=99)).digest != recipe.digest


def test_a_control_is_not_trained_and_a_probe_must_be() -> None:
    control = registry.recipe("untrained_digits_r10w16_e0")
    with pytest.raises(BadRecipe, match=r"Untrained is never trained; set budget.epochs to 0"):
        check(replace(control, budget=replace(control.budget, epochs=3)))
    probed = registry.recipe("vicreg_cifar10_r18_e1000")
    with pytest.raises(BadRecipe, match="'online_linear' needs a probe trained beside; set online_probe to True"):
        check(replace(probed, online_probe=False))


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownName, match=rf"no recipe 'vicreg_digit_r10w16_e50'; did you mean '{ONE}'\?"):
        registry.recipe("vicreg_digit_r10w16_e50")
    with pytest.raises(
        UnknownName, match=r"no method 'vicreq'; did you mean 'vicreg'\?; to add one, write methods/vicreq.py"
    ):
        registry.load("methods", "vicreq")
    with pytest.raises(UnknownName, match=r"no protocol 'knm'; did you mean 'knn'\?"):
        registry.load("harness.evals", "knm")


def test_resolved_recipe_holds_no_module_path() -> None:
    text = str([registry.recipe(name).resolved() for name in NAMES])
    assert "methods." not in text
    assert "harness." not in text


def test_a_recipe_is_one_function() -> None:
    assert all(isinstance(registry.recipe(name), Recipe) for name in NAMES)
