"""Supervised recipes: the ceiling of tables, with labels.

None on factors: trained for the shapes alone a network keeps less of the other factors than SimCLR's does, which is no
ceiling.
"""

from harness.evals import knn
from harness.recipe import Budget, Data, Optimiser, Recipe, View
from methods import supervised
from sweeps import _bases


def supervised_digits_r10w16_e50() -> Recipe:
    """The views and the budget of the others; one view an image."""
    return _bases.digits(supervised.Config(), views=(_bases.digits_view(0),))


def supervised_cifar10_r18_e200() -> Recipe:
    """CIFAR-10 with the optimiser, schedule and batch of kuangliu/pytorch-cifar@49b7aa9, main.py.

    Crops and flips are those of HobbitLong/SupContrast@66a8fe5, main_ce.py, for its crops of a padded image. Departs:
    45,000 of their 50,000 images; no decay of biases and norms (theirs decays all); the cosine goes by step (theirs by
    epoch); probes of the features (theirs: the classifier itself, the best epoch on the test images). Not trained yet.
    """
    return Recipe(
        method=supervised.Config(),
        data=Data(name="cifar10"),
        views=(View(px=32, scale=(0.2, 1.0), flip=0.5),),
        encoder=_bases.R18,
        optimiser=Optimiser(name="sgd", lr=0.1, lr_batch=None, weight_decay=5e-4),
        budget=Budget(epochs=200, batch=128),
        evals=(knn.Config(k=200, temperature=0.1), *_bases.CLASSIFICATION),
    )
