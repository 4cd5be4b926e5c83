"""Does a network learn as much from our views as from torchvision's own transforms, image by image?

    HARNESS_DATA=... python tests/benchmarks/views_accuracy.py --seeds 5 --images 2000 --epochs 3

SimCLR on CIFAR-10 with the views of its recipes, a small network, everything alike but who makes the views. Prints
held-out accuracies in percent, and the 95 % interval of their difference (two samples, Banerjee).
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from harness import feed, train
from harness import statistics as stats
from harness.api import Draws
from harness.evals import knn, linear
from harness.recipe import Budget, Data, Optimiser, Recipe, View
from methods import simclr
from sweeps import _bases
from tests.benchmarks.views import by_torchvision


def theirs(
    elements: tuple[Tensor, Tensor], views: tuple[View, ...], draws: Draws, mean: Tensor, std: Tensor
) -> list[Tensor]:
    """`make_views` by torchvision.transforms.v2, one image at a time; its numbers depend on the seed and the step."""
    torch.manual_seed(draws.generator.initial_seed())
    return [
        torch.stack([by_torchvision(view, mean, std)(image) for image in elements[view.source]])
        for view in views
        for _ in range(view.count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    recipe = Recipe(
        name="views_accuracy",
        method=simclr.Config(widths=(256, 64), norm=True),
        data=Data(name="cifar10", train_images=options.images),
        views=_bases.CIFAR_SYMMETRIC,
        encoder=_bases.R10W16,
        optimiser=Optimiser(name="adamw", lr=2e-3, lr_batch=None, weight_decay=1e-4),
        budget=Budget(epochs=options.epochs, batch=128),
        evals=(knn.Config(), linear.Config()),
    )
    made: dict[tuple[str, str], list[float]] = defaultdict(list)
    makers = {"this module": feed.make_views, "torchvision v2": theirs}
    for seed in range(options.seeds):
        for name, make in makers.items():
            feed.make_views = make
            with tempfile.TemporaryDirectory() as folder:
                record = train.run(recipe, seed, Path(folder), data_root=options.data_root, show=False)
            for row in record["evals"]:
                if row["split"] == "held_out":
                    made[row["protocol"], name].append(row["metrics"]["top1"])
                    top1 = row["metrics"]["top1"]
                    print(f"seed {seed}, {name}: {row['protocol']} {top1:.2f}", file=sys.stderr)  # noqa: T201
    print("| protocol | this module | torchvision v2 | difference |\n| --- | --: | --: | --: |")  # noqa: T201
    for protocol in sorted({protocol for protocol, _ in made}):
        mean, std = (
            {name: measure(made[protocol, name]) for name in makers} for measure in (statistics.mean, statistics.stdev)
        )
        a, b = makers
        half = stats.half_width(stats.two_means(std[a], options.seeds, std[b], options.seeds), 0.025)
        cells = " | ".join(f"{mean[name]:.2f} ± {std[name]:.2f}" for name in makers)
        print(f"| {protocol} | {cells} | {mean[a] - mean[b]:+.2f} ± {half:.2f} |")  # noqa: T201


if __name__ == "__main__":
    main()
