"""Time and memory of the core methods' losses and heads at the sizes their papers print, forward and backward.

    python tests/benchmarks/losses.py

Each case runs in a process of its own. "Kept" is what the inputs, weights and gradients take in any case; "peak" is the
most the process ever held beyond its imports, so what lies between them is what the loss itself needs.
"""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness import allocator
from harness.api import Draws
from harness.seeding import generator
from methods import dino, ssl_hsic, vicreg

MIB = 2**20


def vicreg_loss() -> tuple[nn.Module, list[Tensor], Callable[[], Tensor]]:
    a, b = (torch.randn(2048, 8192, requires_grad=True) for _ in range(2))
    return nn.Identity(), [a, b], lambda: sum(vicreg.vicreg_terms(a, b).values(), torch.zeros(()))


def hsic_loss() -> tuple[nn.Module, list[Tensor], Callable[[], Tensor]]:
    z, scale = torch.randn(4096, 4, 256, requires_grad=True), torch.ones((), requires_grad=True)

    def loss() -> Tensor:
        terms, _ = ssl_hsic.hsic_terms(z, scale, 512, Draws(generator(0, "bench")))
        return sum(terms.values(), torch.zeros(()))

    return nn.Identity(), [z], loss


def dino_loss() -> tuple[nn.Module, list[Tensor], Callable[[], Tensor]]:
    head = dino.Head(384, dino.Config())
    features, teacher = torch.randn(640, 384, requires_grad=True), torch.randn(128, 65536)
    return head, [features, teacher], lambda: dino.distillation(head(features) / 0.1, teacher / 0.04)[0]


CASES = {
    "VICReg, 2,048 x 8,192 twice": vicreg_loss,
    "SSL-HSIC, 4,096 images, 4 embeddings of 256, 512 features": hsic_loss,
    "DINO, head and loss, 10 crops of 64 images, 65,536 wide": dino_loss,
}


def measure(case: str) -> tuple[float, float, float]:
    """Median seconds, MiB of inputs, weights and their gradients, MiB at the peak."""
    allocator.keep()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    module, inputs, loss = CASES[case]()
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        loss().backward()
        seconds.append(time.perf_counter() - begun)
    trained = [*(x for x in inputs if x.requires_grad), *module.parameters()]
    kept = sum(x.nbytes for x in [*inputs, *module.parameters(), *trained])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return statistics.median(seconds[1:]), kept / MIB, peak


def rows() -> Iterator[tuple[Any, ...]]:
    for case in CASES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield case, *pool.apply(measure, (case,))


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads\n\n| loss | s | MiB kept | MiB peak |\n| --- | --- | --- | --- |")  # noqa: T201
    for case, seconds, kept, peak in rows():
        print(f"| {case} | {seconds:.2f} | {kept:.0f} | {peak:.0f} |")  # noqa: T201
