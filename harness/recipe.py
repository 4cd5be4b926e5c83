"""Recipes: a complete, frozen description of one training run. A run is one recipe and one seed.

Everything here is data. A recipe is composed in Python functions in `sweeps/`, is never edited once published, and
its digest covers everything that can change the weights that come out.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from harness.api import MethodConfig
from harness.errors import BadRecipe, UnknownName

UNSHAPING = ("name", "overrides", "evals", "monitor", "splits")  # what does not shape the weights
_LATER = (
    ("budget", "steps", None),
    ("budget", "accumulate", 1),
    ("", "precision", "float32"),
)  # than the first digests
SEED_POLICY = "stateless-1"  # how seeds become random numbers (harness/seeding.py); a change of it changes every digest


@dataclass(frozen=True, kw_only=True)
class View:
    """How one view is made from an image. Probabilities are per image; each image draws its own parameters.

    role: what methods ask for, "global" or "local". source: element of the pair it is taken from (0 or 1).
    px: side of the result, pixels. scale: range of the crop's area as a share of the image; ratio: of its aspect.
    jitter: largest change of (brightness, contrast, saturation, hue), torchvision's meaning, in random order.
    blur_sigma: standard deviation in pixels. solarize inverts values above one half.
    """

    px: int
    role: str = "global"
    source: int = 0
    count: int = 1
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images. name: see harness/data/__init__.py. px: side they are resized to once, None keeps the set's own.

    pairs: "augmentation" (both elements are one image), "same_identity" (another image of the same object),
    "latent_change" (an image whose factors differ by a known change), "bimodal_noise" or "linear_noise" (both drawn
    anew, near each other; harness/sphere.py).
    train_images: use only that many training images, the first of a fixed shuffle; None uses all.
    """

    name: str
    px: int | None = None
    pairs: str = "augmentation"
    train_images: int | None = None


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A timm model by name; harness/backbones.py adds `<resnet>_small_stem` for images up to 64 px, `pixels` and `mlp`.

    options: further keyword arguments of `timm.create_model`, e.g. (("img_size", 32), ("patch_size", 4)).
    label: short name for tables.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """name: "lars", "adamw", "adam" or "sgd". lr is for a batch of `lr_batch` images (None: not scaled with the batch).

    final_lr: where the cosine ends, as a share of the peak; schedule "constant" keeps the peak after warm-up.
    weight_decay_end: a cosine from weight_decay to it over the run (DINO). trust: LARS coefficient eta.
    clip_tensor: largest norm of each parameter tensor's gradient (DINO); clip_global: of all of them together.
    """

    name: str
    lr: float
    lr_batch: int | None = 256
    momentum: float = 0.9
    weight_decay: float = 0.0
    weight_decay_end: float | None = None
    trust: float = 0.001
    schedule: str = "cosine"
    final_lr: float = 0.0
    reach_peak_early: bool = False
    clip_tensor: float | None = None
    clip_global: float | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """epochs over the train split; batch: images per step over all processes (a last, smaller one is dropped).

    warmup: epochs of it. steps: the run ends after so many, in the midst of its last epoch; None: with that epoch.
    accumulate: the encoder takes the images of a step (of each process) in so many parts, which bounds its memory;
        heads and loss see the whole batch, so the loss stays that of the batch. Batch norms of the encoder normalise
        each part by itself. It costs a forward pass more (harness/backbones.py).
    """

    epochs: int
    batch: int
    warmup: int = 0
    steps: int | None = None
    accumulate: int = 1


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """Settings of one way to evaluate; a subclass named `Config` in each file of harness/evals/."""

    protocol: ClassVar[str]  # the file's name

    @property
    def id(self) -> str:
        """Name in records and tables: the protocol and the settings that tell two of its uses apart."""
        return self.protocol


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What is measured on held-out images while the run trains; nothing of the run changes by it.

    protocol: id of one of the recipe's evals, "" for none. every: epochs between two measurements.
    """

    protocol: str = ""
    every: int = 1


SPLITS = ("held_out", "test")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """name: set by the registry, the function's name.

    online_probe: whether a linear classifier is trained beside, on detached features.
    splits: those that the evaluations read; without "test" a run leaves the test images alone.
    precision: of a training step, "float32", or "bfloat16" by autocast; weights, optimiser and evaluations are float32.
    """

    method: MethodConfig
    data: Data
    views: tuple[View, ...]
    encoder: Encoder
    optimiser: Optimiser
    budget: Budget
    evals: tuple[ProtocolConfig, ...] = ()
    online_probe: bool = False
    monitor: Monitor = Monitor()
    splits: tuple[str, ...] = SPLITS
    precision: str = "float32"
    name: str = ""
    overrides: tuple[str, ...] = field(default=())

    def resolved(self) -> dict[str, Any]:
        """The recipe as JSON-ready data; what a run directory stores."""
        return to_data(self)

    @property
    def digest(self) -> str:
        """12 hex digits over all that shapes the weights.

        Left out: the name, the overrides' spelling, the encoder's label for tables, and the evaluations and what is
        measured on the way, which read the weights and state their own settings in each record.
        """
        from harness.data import revision  # late, as in check

        shaping = {k: v for k, v in self.resolved().items() if k not in UNSHAPING}
        shaping["encoder"].pop("label")
        for where, key, before in _LATER:
            if (shaping[where] if where else shaping)[key] == before:
                (shaping[where] if where else shaping).pop(key)
        shaping |= {"data_revision": revision(self.data.name), "seed_policy": SEED_POLICY}
        text = json.dumps(shaping, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_data(value: Any) -> Any:
    """Frozen dataclasses, tuples and scalars as JSON-ready data; a method or protocol also tells its name."""
    if is_dataclass(value) and not isinstance(value, type):
        data = {f.name: to_data(getattr(value, f.name)) for f in fields(value)}
        if isinstance(value, MethodConfig | ProtocolConfig):
            data = {"name": type(value).__module__.rsplit(".", 1)[-1], **data}
        return data
    if isinstance(value, tuple):
        return [to_data(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise BadRecipe(f"a recipe holds frozen dataclasses, tuples and plain values only; found {value!r}")


def check(recipe: Recipe) -> None:
    """Refuse a recipe that contradicts itself or its method, before any data or GPU is asked for. Errors: BadRecipe."""
    from harness import data  # late: data reads recipes

    data.check(recipe.data)
    where = f"recipe {recipe.name!r}"
    budget, needs = recipe.budget, recipe.method.requirements()
    for what, value, fine, expected in _ranges(recipe):
        if not fine:
            raise BadRecipe(f"{where}: {what} is {value!r}, expected {expected}")
    if recipe.data.name in data.VECTORS:
        _check_vectors(recipe, data.side(recipe.data))
    if budget.epochs and not needs.views:
        raise BadRecipe(f"{where}: {recipe.method.label} is never trained; set budget.epochs to 0")
    if not recipe.online_probe and any(one.protocol == "online_linear" for one in recipe.evals):
        raise BadRecipe(f"{where}: protocol 'online_linear' needs a probe trained beside; set online_probe to True")
    ids = [one.id for one in recipe.evals]
    if recipe.monitor.protocol and recipe.monitor.protocol not in ids:
        raise UnknownName("protocol to monitor", recipe.monitor.protocol, ids, fix=f"{where} measures no other")
    if not recipe.splits or not set(recipe.splits) <= set(SPLITS):
        raise BadRecipe(f"{where}: splits is {recipe.splits!r}, expected one or both of {SPLITS}")
    if budget.warmup > budget.epochs:
        raise BadRecipe(
            f"{where}: warm-up of {budget.warmup} epochs is longer than the run of {budget.epochs}; lower budget.warmup"
        )
    if budget.batch < needs.min_batch:
        raise BadRecipe(
            f"{where}: batch {budget.batch} is under the {needs.min_batch} that {recipe.method.label} needs; "
            "raise budget.batch"
        )
    if budget.batch % needs.batch_divisor:
        raise BadRecipe(
            f"{where}: batch {budget.batch} is not a multiple of {needs.batch_divisor}, as {recipe.method.label} needs"
            "; change budget.batch"
        )
    if needs.batch_divides and needs.batch_divides % budget.batch:
        raise BadRecipe(
            f"{where}: batch {budget.batch} does not divide {needs.batch_divides}, the queue of {recipe.method.label}; "
            "change budget.batch or method.queue"
        )
    if needs.index and recipe.data.name in data.VECTORS:
        raise BadRecipe(
            f"{where}: {recipe.method.label} remembers images by their index, and data set {recipe.data.name!r} draws "
            "its pairs anew in each step; use another data set"
        )
    if needs.labels and data.classes(recipe.data) < 2:
        raise BadRecipe(
            f"{where}: {recipe.method.label} learns from labels, and data set {recipe.data.name!r} has none"
        )
    if needs.patches:
        _check_patches(recipe)
    offered = [(view.role, view.source) for view in recipe.views for _ in range(view.count)]
    wanted = list(zip(needs.views, needs.sources, strict=True))
    extra = offered[len(wanted) :]
    if offered[: len(wanted)] != wanted or (
        extra and not (needs.local_views and all(role == "local" for role, _ in extra))
    ):
        more = ", then any number of local ones" if needs.local_views else ""
        raise BadRecipe(
            f"{where}: {recipe.method.label} needs the views {_spell(wanted)}{more}; the recipe gives {_spell(offered)}"
        )
    if recipe.optimiser.schedule not in ("cosine", "constant"):
        raise BadRecipe(
            f"{where}: optimiser.schedule is {recipe.optimiser.schedule!r}, expected 'cosine' or 'constant'"
        )
    if recipe.precision not in ("float32", "bfloat16"):
        raise BadRecipe(f"{where}: precision is {recipe.precision!r}, expected 'float32' or 'bfloat16'")
    if recipe.optimiser.name not in ("lars", "adamw", "adam", "sgd"):
        raise BadRecipe(
            f"{where}: optimiser.name is {recipe.optimiser.name!r}, expected 'lars', 'adamw', 'adam' or 'sgd'"
        )


def _check_vectors(recipe: Recipe, length: int) -> None:
    """Vectors have no size, crop or colour that could be changed. Errors: BadRecipe."""
    where = f"recipe {recipe.name!r}: data set {recipe.data.name!r} holds vectors"
    if recipe.encoder.name not in ("mlp", "pixels"):
        raise BadRecipe(f"{where}; encoder.name is {recipe.encoder.name!r}, expected 'mlp' or 'pixels'")
    for i, view in enumerate(recipe.views):
        as_it_is = View(px=length, role=view.role, source=view.source, count=view.count, scale=(1, 1), ratio=(1, 1))
        if view != as_it_is:
            raise BadRecipe(
                f"{where}; views.{i} would change images, expected px={length}, scale=(1.0, 1.0), ratio=(1.0, 1.0) "
                "and no augmentation"
            )


def _check_patches(recipe: Recipe) -> None:
    """Errors: BadRecipe for an encoder that does not begin with a patch embedding."""
    from harness import backbones  # late, it needs timm

    if not backbones.has_patches(recipe.encoder):
        raise BadRecipe(
            f"recipe {recipe.name!r}: {recipe.method.label} treats the patch embedding of a ViT apart, and encoder "
            f"{recipe.encoder.name!r} has none; use a ViT, or turn that option of the method off"
        )


def check_processes(recipe: Recipe, processes: int) -> None:
    """Refuse a number of processes that the batch cannot be divided among equally. Errors: BadRecipe."""
    batch = recipe.budget.batch
    if recipe.budget.epochs and batch % processes:
        fit = [str(n) for n in range(1, batch + 1) if batch % n == 0]
        raise BadRecipe(
            f"recipe {recipe.name!r}: a batch of {batch} does not divide over {processes} processes; "
            f"use {', '.join(fit[:8])}" + (", ..." if len(fit) > 8 else "")
        )
    if batch // processes % recipe.budget.accumulate:
        raise BadRecipe(
            f"recipe {recipe.name!r}: the {batch // processes} images of a process do not divide into "
            f"budget.accumulate = {recipe.budget.accumulate} equal parts; use a divisor"
        )


def _ranges(recipe: Recipe) -> Iterator[tuple[str, Any, bool, str]]:
    """Every setting with a range: its path, its value, whether it is fine, and what would be."""
    o, b = recipe.optimiser, recipe.budget
    yield "optimiser.lr", o.lr, 0 < o.lr < float("inf"), "a number above 0"
    yield "optimiser.momentum", o.momentum, 0 <= o.momentum < 1, "0 to 1"
    yield "optimiser.weight_decay", o.weight_decay, o.weight_decay >= 0, "0 or more"
    yield "budget.epochs", b.epochs, b.epochs >= 0, "0 or more"
    yield "budget.steps", b.steps, b.steps is None or b.steps >= 1, "1 or more, or None for whole epochs"
    yield "budget.accumulate", b.accumulate, b.accumulate >= 1, "1 or more parts"
    yield "budget.warmup", b.warmup, b.warmup >= 0, "0 or more"
    yield "monitor.every", recipe.monitor.every, recipe.monitor.every >= 1, "1 or more epochs"
    n = recipe.data.train_images
    yield "data.train_images", n, n is None or n >= 1, "images, or None for all"
    widths = getattr(recipe.method, "widths", (1,))
    yield "method.widths", widths, len(widths) > 0 and min(widths) >= 1, "one or more positive widths"
    for i, view in enumerate(recipe.views):
        yield f"views.{i}.px", view.px, view.px >= 1, "1 or more"
        yield f"views.{i}.count", view.count, view.count >= 1, "1 or more"
        yield f"views.{i}.source", view.source, view.source in (0, 1), "0 or 1"
        yield f"views.{i}.scale", view.scale, 0 < view.scale[0] <= view.scale[1] <= 1, "0 < low <= high <= 1"
        yield f"views.{i}.ratio", view.ratio, 0 < view.ratio[0] <= view.ratio[1], "0 < low <= high"
        for name in ("flip", "jitter_p", "grey", "blur", "solarize"):
            p = getattr(view, name)
            yield f"views.{i}.{name}", p, 0 <= p <= 1, "a probability, 0 to 1"


def _spell(views: list[tuple[str, int]]) -> str:
    return "[" + ", ".join(f"{role} of element {source}" for role, source in views) + "]"
