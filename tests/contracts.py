"""What every method owes, as helpers: small configurations, batches, one training step, and two processes.

A new file in methods/ is tested as its recipes on embedded data configure it, in each variant that they have: with the
contract, on two processes, against its first losses once they are recorded, and cut and resumed.
"""

import re
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from harness import registry
from harness.api import Backbone, Batch, Clock, Draws, Method, MethodConfig, Step, TrainSet
from harness.data.sets import GENERATED
from harness.nn.collectives import all_gather, all_mean, all_sum, synchronise_batch_norm
from harness.registry import load, names

TRAIN = TrainSet(images=256, classes=3)
EMBEDDED = ("digits", *GENERATED)  # data sets that need no files

# method -> variant -> what differs from the defaults; `base` names another case. For variants that no recipe has.
SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "vicreg": {"": {"widths": (24, 24, 24)}},
    "ssl_hsic": {
        "": {"widths": (24, 8), "features": 64},
        "no_target": {"widths": (24, 8), "features": 64, "with_target": False},
    },
    "simclr": {
        "": {"widths": (24, 8)},
        "learnable": {"widths": (24, 8), "norm": True, "last_bias": False, "clamp": 20.0, "learnable_scale": True},
    },
    "byol": {"": {"widths": (24, 8)}},
    "simsiam": {
        "": {"widths": (24, 24, 8), "bottleneck": 4},
        "regularised": {
            "widths": (24, 24, 8),
            "bottleneck": 4,
            "norm": False,
            "variance": 1.0,
            "covariance": 0.01,
        },
        "siamese": {"widths": (24, 24, 8), "predictor": False, "stop_gradient": False},
    },
    "aninfonce": {"": {}, "infonce": {"temperature": 0.5}},
    "untrained": {"": {}},
    "dino": {
        "": {"out_dim": 32, "hidden": 24, "bottleneck": 8, "centre_momentum": 0.5},
        "norms": {"out_dim": 32, "hidden": 24, "bottleneck": 8, "use_bn": True, "norm_last_layer": False},
    },
    "adassl": {
        "v_simclr": {"base": "simclr", "variant": "v", "latent": 4, "hidden": (16,)},
        "s_simclr": {"base": "simclr", "variant": "s", "latent": 4, "hidden": (16,)},
        "v_byol": {"base": "byol", "variant": "v", "latent": 8, "hidden": (16,), "editor": "additive"},
        "s_byol": {"base": "byol", "variant": "s", "latent": 4, "hidden": (16,), "third_view": True},
    },
}


@cache
def recipe_cases() -> dict[str, str]:
    """Case -> the recipe that configures it, of methods that are not in SMALL: "moco_v2-sym" after `..._e50_sym`.

    The first recipe on embedded data of each configuration of the method.
    """
    found: dict[str, str] = {}
    for recipe, method in registry.recipe_names().items():
        parts = re.fullmatch(rf"{method}(.*)_(?:{'|'.join(EMBEDDED)})_([a-z0-9]+)_[es]\d+(.*)", recipe)
        if parts and method not in SMALL:
            same = [one for one in found.values() if registry.recipe(one).method == registry.recipe(recipe).method]
            if not same:
                case = f"{method}-{(parts[1] + parts[3]).strip('_')}".rstrip("-")
                found[case if case not in found else f"{case}-{parts[2]}"] = recipe
    return found


def cases() -> list[str]:
    """Every method in the folder in every small variant: "vicreg", "ssl_hsic-no_target"."""
    listed = [f"{name}-{variant}".rstrip("-") for name in names("methods") for variant in SMALL.get(name, {})]
    bare = set(names("methods")) - {case.partition("-")[0] for case in (*listed, *recipe_cases())}
    return sorted([*listed, *recipe_cases(), *bare])


def trained_cases() -> list[str]:
    """The cases that have a loss; a control asks for no view."""
    return [case for case in cases() if config(case).requirements().views]


def config(case: str, **changes: Any) -> MethodConfig:
    if case in recipe_cases():
        method = registry.recipe(recipe_cases()[case]).method
        queue = {"queue": 8} if method.requirements().batch_divides else {}  # full after a step of 8 images
        return replace(method, **(queue | changes))
    name, _, variant = case.partition("-")
    settings = SMALL.get(name, {"": {}})[variant] | changes
    if "base" in settings:
        settings = settings | {"base": config(settings["base"])}
    return load("methods", name).Config(**settings)


class SmallBackbone(Backbone):
    """One convolution with batch norm, for images of any size; the convolution passes for a patch embedding."""

    width = 32

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    @property
    def patches(self) -> nn.Module:
        return self.layers[0]


def build(settings: MethodConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> Method[Any]:
    torch.manual_seed(seed)
    return settings.build(SmallBackbone(), TRAIN).to(dtype).train()


def batch_size(settings: MethodConfig) -> int:
    """The smallest global batch that the method takes, but at least 8; even, for two processes."""
    needs = settings.requirements()
    least = max(8, needs.min_batch)
    fits = (n for n in range(least, 513) if n % 2 == 0 and n % needs.batch_divisor == 0)
    return next(n for n in fits if needs.batch_divides is None or needs.batch_divides % n == 0)


def make_batch(
    settings: MethodConfig,
    B: int | None = None,
    *,
    step: int = 0,
    dtype: torch.dtype = torch.float64,
    rank: int = 0,
    world: int = 1,
) -> Batch:
    """Pairs of near images, each view with noise of its own; process `rank` gets its B of the same B * world images.

    The images are always the same; the method's draws depend on the step. B: None for what the method needs.
    """
    B = batch_size(settings) // world if B is None else B
    fixed, N = torch.Generator().manual_seed(1), B * world
    first = torch.randn(N, 3, 12, 12, generator=fixed, dtype=dtype)
    elements = (first, first + 0.5 * torch.randn(N, 3, 12, 12, generator=fixed, dtype=dtype))
    needs = settings.requirements()
    views = [elements[source] for source in needs.sources]
    if needs.local_views:
        views += [element[:, :, :8, :8] for element in elements]
    views = [view + 0.2 * torch.randn(view.shape, generator=fixed, dtype=dtype) for view in views]
    mine = slice(rank * B, (rank + 1) * B)
    draws = Draws(torch.Generator().manual_seed(100 + step), "cpu", dtype, rank, world)
    clock = Clock(step, steps=40, steps_per_epoch=10)
    labels = torch.arange(N)[mine] % TRAIN.classes if needs.labels else None
    return Batch([view[mine] for view in views], torch.arange(N)[mine], clock, draws, labels)


def train(method: Method[Any], steps: int, B: int | None = None, *, lr: float = 3e-3, start: int = 0) -> list[Step]:
    """Adam on one fixed batch."""
    dtype = next(method.parameters()).dtype
    optimiser = torch.optim.Adam([p for group in method.param_groups() for p in group.params], lr=lr)
    outs = []
    for step in range(start, start + steps):
        batch = make_batch(method.config, B, step=step, dtype=dtype)
        out = method.step(batch)
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        method.after_step(batch.clock)
        outs.append(out)
    return outs


# ---------------------------------------------------------------------------------------------- two processes


def two_steps(case: str, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Two SGD steps on this process's images: losses, gradients of the second (averaged as DDP does), state."""
    method = build(config(case))
    synchronise_batch_norm(method)
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    losses, gradients = [], {}
    for step in range(2):
        batch = make_batch(method.config, step=step, rank=rank, world=world)
        out = method.step(batch)
        losses.append(all_mean(out.loss.detach()))
        own = torch.autograd.grad(out.loss, list(trainable.values()))
        with torch.no_grad():  # by hand: torch.optim imports for seconds
            for (name, p), gradient in zip(trainable.items(), own, strict=True):
                gradients[name] = all_mean(gradient)
                p -= 0.05 * gradients[name]
        method.after_step(batch.clock)
    return {"losses": torch.stack(losses), "gradients": gradients, "state": method.state_dict()}


def norm_layers() -> nn.Sequential:
    """Batch norm over images and over vectors, one of them with a cumulative average and one without parameters."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.BatchNorm2d(3, momentum=None),
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.BatchNorm1d(16, affine=False),
    )
    return layers.double()


def norm_input() -> Tensor:
    return torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def normalised(layers: nn.Sequential, x: Tensor) -> dict[str, Any]:
    """Outputs, input gradient and state after two training passes, then the output in evaluation mode."""
    x = x.clone().requires_grad_()
    layers(x)
    y = layers(x)
    y.pow(3).sum().backward()
    state = {name: value.clone() for name, value in layers.state_dict().items()}
    with torch.no_grad():
        return {"y": y.detach(), "gradient": x.grad, "state": state, "evaluated": layers.eval()(x)}


def collectives(rank: int) -> dict[str, Any]:
    """Values and input gradients of each collective under a loss that both processes compute alike."""
    found = {}
    for name, collective in {"gather": all_gather, "sum": all_sum, "mean": all_mean}.items():
        x = torch.arange(6, dtype=torch.float64).reshape(3, 2).add(10 * rank).requires_grad_()
        y = collective(x)
        (y.square() * torch.arange(y.numel()).reshape(y.shape)).sum().backward()
        found[name] = (y.detach(), x.grad)
    return found


def _process(rank: int, folder: str, world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    layers = norm_layers()
    synchronise_batch_norm(layers)
    found = {
        "methods": {case: two_steps(case, rank, world) for case in trained_cases()},
        "norm": normalised(layers, norm_input().chunk(world)[rank]),
        "collectives": collectives(rank),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@cache
def two_processes() -> list[dict[str, Any]]:
    """What each of two gloo processes finds; started once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, args=(folder, 2), nprocs=2)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]
