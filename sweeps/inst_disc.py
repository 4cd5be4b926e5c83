"""NPID recipes: instance discrimination with a memory bank and the exact softmax."""

from harness.evals import knn
from harness.recipe import Budget, Data, Optimiser, Recipe, View
from methods import inst_disc
from sweeps import _bases


def inst_disc_digits_r10w16_e50() -> Recipe:
    """The published temperature and momentum, an embedding of 64 numbers; one view an image."""
    return _bases.digits(inst_disc.Config(widths=(64,)), views=(_bases.digits_view(0),))


def inst_disc_cifar10_r18_e200() -> Recipe:
    """CIFAR-10 as in zhirongw/lemniscate.pytorch@f7cfe29, `cifar.py --nce-k 0 --nce-t 0.1 --lr 0.03`.

    The bank is 45,000 * 128 numbers, 22 MiB. Its README prints no number of it. Departs: the rate falls along a cosine
    (theirs to a tenth after 120 and after 160 epochs); 45,000 of their 50,000 images; no decay of biases and norms
    (theirs decays all); the nearest neighbours are those of the backbone's features (theirs: of the 128 numbers). Not
    trained yet.
    """
    return Recipe(
        method=inst_disc.Config(),
        data=Data(name="cifar10"),
        views=(View(px=32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, grey=0.2),),
        encoder=_bases.R18,
        optimiser=Optimiser(name="sgd", lr=0.03, lr_batch=None, weight_decay=5e-4),
        budget=Budget(epochs=200, batch=128),
        evals=(knn.Config(k=200, temperature=0.1), *_bases.CLASSIFICATION),
    )
