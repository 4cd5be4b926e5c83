"""Points on a sphere, seen through an invertible network, in pairs that lie near each other by a known law.

The numerical experiment of AnInfoNCE (arXiv:2407.00143), as brendel-group/AnInfoNCE@c6907e5 generates it. A latent is
uniform on the unit sphere in 10 dimensions; its partner is drawn around it, closer in some coordinates than in others;
both are observed through a mixing network. There is no finite train set: every step draws its pairs anew.

Departs from the oracle: its mixing network is another one in every run, each layer the first of many uniform matrices
with unit columns whose condition number is no more than the smallest of 25,000 others (3.2 to 3.6 in its two logs).
Here it is one and the same, of the three best conditioned of a million (3.0 to 3.4).

Shapes: B pairs on this process, N = B * world size, n = WIDTH.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Draws

WIDTH = 10
FACTORS = tuple(f"z{i}" for i in range(WIDTH))
# how `Data.pairs` names it -> Lambda, the inverse variance of each coordinate's noise (main_mlp.py, --gt-lambda-1, -2)
PRECISION = {
    "bimodal_noise": (25.0,) * 5 + (5.0,) * 5,
    "linear_noise": tuple(5 + 20 * i / 9 for i in range(WIDTH)),
}
SHELL = 0.1  # a noisy point is kept if its length is that near to 1 (--threshold)
SLOPE = 0.2  # of the mixing network's leaky ReLU for negative inputs
MIXING = (709203, 421016, 929879)  # seeds below 1,000,000 whose `matrix` has the smallest condition numbers


def matrix(seed: int) -> Tensor:
    """(n, n) uniform in [-1, 1], float32, columns scaled to length 1."""
    A = np.random.default_rng(seed).uniform(-1, 1, (WIDTH, WIDTH))
    return torch.from_numpy(A / np.sqrt((A * A).sum(axis=0))).float()


@cache
def mixing() -> tuple[Tensor, ...]:
    return tuple(matrix(seed) for seed in MIXING)


def observe(latents: Tensor) -> Tensor:
    """(B, n) -> (B, n): three linear layers with a leaky ReLU between them; invertible."""
    first, *others = (layer.to(latents) for layer in mixing())
    x = latents @ first.T
    for layer in others:
        x = F.leaky_relu(x, SLOPE) @ layer.T
    return x


def pair(B: int, precision: tuple[float, ...], draws: Draws) -> tuple[Tensor, Tensor]:
    """Latents of B pairs, (B, n) each, on the CPU.

    The second is the first plus Gaussian noise, drawn again until it is near the sphere, and then put on it. Every
    process draws all N pairs and takes its own, since how many numbers that takes depends on the numbers.
    """
    whole = Draws(draws.generator, dtype=draws.dtype)
    z = F.normalize(whole.normal(B * draws.world, WIDTH), dim=1)
    scale = torch.tensor(precision, dtype=z.dtype).rsqrt()
    other = torch.empty_like(z)
    left = torch.arange(len(z))
    while len(left):
        moved = z[left] + scale * whole.normal(len(left), WIDTH)
        length = moved.norm(dim=1)
        near = (length - 1).abs() < SHELL
        other[left[near]] = moved[near] / length[near, None]
        left = left[~near]
    mine = slice(draws.rank * B, (draws.rank + 1) * B)
    return z[mine], other[mine]
