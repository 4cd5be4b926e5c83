"""SupCon recipes. It reads labels: its rows are a ceiling of tables, not entries."""

from dataclasses import replace

from harness.evals import linear_sgd
from harness.recipe import Budget, Data, Encoder, Optimiser, Recipe, View
from methods import supcon
from sweeps import _bases


def supcon_digits_r10w16_e50() -> Recipe:
    """The published temperature, head 256-64."""
    return _bases.digits(supcon.Config(widths=(256, 64)))


def supcon_digits_r10w16_e50_inside() -> Recipe:
    """`supcon_digits_r10w16_e50` with the mean over positives inside the logarithm: L_in, which solo-learn trains."""
    return _bases.digits(supcon.Config(widths=(256, 64), inside=True))


def supcon_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for SupCon; its README states 93.82 top-1 (online linear).

    Their loss is L_in (`inside`), which the paper found worse than its own. SGD for the LARS of the others. Departs:
    see `_bases.cifar10`; no decay of biases and norms (theirs decays all). Not trained yet.
    """
    return _solo(epochs=1000)


def supcon_cifar10_r18_e200() -> Recipe:
    """`supcon_cifar10_r18_e1000` after 200 epochs. Not trained yet."""
    return _solo(epochs=200)


def supcon_cifar10_r50_e1000() -> Recipe:
    """CIFAR-10 as in SupContrast@66a8fe5, `main_supcon.py --batch_size 1024 --learning_rate 0.5 --temp 0.1 --cosine`.

    Its README states 96.0 (ResNet-50, linear). Their loss is tau / 0.07 times ours; with SGD that is a learning rate
    1 / 0.7 times theirs and a weight decay 0.7 times theirs. Departs: 45,000 of their 50,000 images; no decay of biases
    and norms (theirs decays all); warm-up from 0 to the peak (theirs from 0.01 to the cosine); the probe has no crops,
    its rate falls to a tenth each time (theirs: to a fifth). Not trained yet.
    """
    view = View(px=32, scale=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey=0.2)
    return Recipe(
        method=supcon.Config(),
        data=Data(name="cifar10"),
        views=(view, replace(view, source=1)),
        encoder=Encoder(name="resnet50_small_stem", label="ResNet-50"),
        optimiser=Optimiser(name="sgd", lr=0.5 / 0.7, lr_batch=None, weight_decay=0.7e-4, final_lr=1e-3),
        budget=Budget(epochs=1000, batch=1024, warmup=10),
        evals=(linear_sgd.Config(lr=5.0, batch=512, drops=(60, 75, 90)), *_bases.CLASSIFICATION),
    )


def _solo(epochs: int) -> Recipe:
    method = supcon.Config(widths=(2048, 256), temperature=0.2, inside=True)
    recipe = _bases.cifar10(method, views=_bases.CIFAR_SYMMETRIC, lr=0.4, weight_decay=1e-5, epochs=epochs)
    return replace(recipe, optimiser=replace(recipe.optimiser, name="sgd"))
