"""Time and memory of the k-NN and linear protocols beside scikit-learn's and faiss's, on drawn features, as a table.

    python tests/benchmarks/evaluation.py [knn] [large] [linear] [sgd] [--repeats 3] [--device cuda]

knn     10,000 queries among 50,000 x 512, 100 classes, k = 20
large   256 queries among 128,000 x 2048, 1,000 classes; times 1,950 it is ImageNet's bank and validation set
linear  logistic regression of 10 and of 100 classes on 20,000 x 512, one L2 strength, gradient tolerance 1e-5
sgd     the SGD probe with 9 learning rates on 45,000 x 512, 2 epochs: at once, and one after the other

The contestants take turns; a cell is the median and the range of the repeats, a ratio that of the medians to the
harness. `more memory` is what a turn takes beside its data at its peak, in a process of its own (GPU: the host's).
faiss-cpu is left out where it is not installed.
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.evals import knn, linear, linear_sgd
from harness.features import Table

Work = Callable[[], object]
IMAGENET = 1_281_167 / 128_000 * 50_000 / 256  # of `large`, in multiplications
FAISS = importlib.util.find_spec("faiss") is not None


def drawn(n: int, width: int, classes: int, spread: float) -> tuple[Tensor, Tensor]:
    """Features around class means, which are the same in every draw, and their labels."""
    means = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(classes, (n,))
    return means[labels] + spread * torch.randn(n, width), labels


def neighbours(bank_rows: int, width: int, queries: int, classes: int, device: str) -> dict[str, Work]:
    """All three give the classes' weights of the 20 nearest by cosine similarity, and normalise within the time."""
    bank, labels = drawn(bank_rows, width, classes, 4)
    asked, _ = drawn(queries, width, classes, 4)

    def ours() -> object:
        return knn.votes(bank, labels, asked, classes, 20, 0.07, device)

    def scikit_learn() -> object:
        from sklearn.neighbors import KNeighborsClassifier

        def weights(distance):  # type: ignore[no-untyped-def]
            import numpy as np

            return np.exp(-distance / 0.07)

        model = KNeighborsClassifier(20, weights=weights, metric="cosine", algorithm="brute", n_jobs=-1)
        return model.fit(bank.numpy(), labels.numpy()).predict_proba(asked.numpy())

    def faiss_flat() -> object:
        import faiss

        index = faiss.IndexFlatIP(width)
        index.add(F.normalize(bank, dim=1).numpy())
        near, place = (torch.from_numpy(found) for found in index.search(F.normalize(asked, dim=1).numpy(), 20))
        votes = torch.exp((near - near[:, :1]) / 0.07)
        return torch.zeros(queries, classes).scatter_add_(1, labels[place], votes)

    found: dict[str, Work] = {"harness": ours, "scikit-learn": scikit_learn}
    return found | ({"faiss IndexFlatIP": faiss_flat} if FAISS else {})


def regression(classes: int, device: str) -> dict[str, Work]:
    x, labels = drawn(20_000, 512, classes, 8)
    z, weight_decay = (x - x.mean(0)) / x.std(0), 0.01
    there = z.to(device), labels.to(device)

    def ours() -> object:
        return list(linear.path(*there, classes, (weight_decay,)))

    def scikit_learn() -> object:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / (weight_decay * len(z)), tol=1e-5, max_iter=500)
        return model.fit(z.numpy(), labels.numpy())

    return {"harness": ours, "scikit-learn": scikit_learn}


def probes(classes: int, device: str) -> dict[str, Work]:
    x, labels = drawn(45_000, 512, classes, 8)
    train, config = Table(x, labels, torch.empty(len(x), 0)), linear_sgd.Config(epochs=2, drops=())
    lrs = tuple(0.001 * 10 ** (i / 4) for i in range(9))
    return {
        "harness, 9 at once": lambda: linear_sgd.fit(config, lrs, train, classes, device),
        "harness, one after the other": lambda: [linear_sgd.fit(config, (lr,), train, classes, device) for lr in lrs],
    }


CASES: dict[str, dict[str, Callable[[str], dict[str, Work]]]] = {
    "knn": {"k-NN, 10,000 among 50,000 x 512": partial(neighbours, 50_000, 512, 10_000, 100)},
    "large": {"k-NN, 256 among 128,000 x 2048": partial(neighbours, 128_000, 2048, 256, 1000)},
    "linear": {f"L-BFGS, {C} classes, 20,000 x 512": partial(regression, C) for C in (10, 100)},
    "sgd": {f"SGD, {C} classes, 45,000 x 512": partial(probes, C) for C in (10, 100)},
}


def memory(case: str, title: str, name: str, device: str) -> int:
    """MiB that one turn adds to the peak of this process."""
    work = CASES[case][title](device)[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (Linux)
    before = peak()
    work()
    return (peak() - before) // 1024


def peak() -> int:
    """Largest resident size so far in KiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    say("| work | by | seconds | ratio | more memory, MiB |\n| --- | --- | --- | --: | --: |")
    for case in asked.cases or CASES:
        for title, make in CASES[case].items():
            torch.manual_seed(1)
            works = make(asked.device)
            seconds: dict[str, list[float]] = {name: [] for name in works}
            for _ in range(asked.repeats):
                for name, work in works.items():
                    begun = time.perf_counter()
                    work()
                    if asked.device == "cuda":
                        torch.cuda.synchronize()
                    seconds[name].append(time.perf_counter() - begun)
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            for name, values in seconds.items():
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    more = pool.apply(memory, (case, title, name, asked.device))
                spread = f"{medians[name]:.3g} ({min(values):.3g} to {max(values):.3g})"
                ratio = medians[name] / next(iter(medians.values()))
                say(f"| {title} | {name} | {spread} | {ratio:.2f} | {more} |")
                if case == "large":
                    hours = medians[name] * IMAGENET / 3600
                    say(f"| extrapolated: 50,000 among 1,281,167 x 2048 | {name} | {hours:.2g} hours | {ratio:.2f} | |")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
