"""T-REGS: spread the embeddings by lengthening the shortest tree that joins them, alone or beside another method.

Paper    Mordacq, Loiseaux, Kalogeiton & Oudot, NeurIPS 2025, arXiv:2510.23484, eqs. 4 to 6 and 10, Algorithm 1.
Loss     beta L + sum over views of [- gamma |MST(z)| / N + lambda mean (|z| - 1)^2], |MST(z)| the length of the minimum
         spanning tree; L the mean of |a - b|^2, or the loss of another method
Oracle   None ran: the authors' code (jumdc/t-regs) was not at hand; the equations restated, with Kruskal's algorithm.
Departs  Nothing in the loss. Prim's algorithm finds the tree (theirs: Kruskal's), the same one unless distances tie.
         Over another method the embeddings are those before any normalisation; the paper does not say, and prints
         coefficients over none but CLIP (App. C.3: 1, 3e-3, 2e-5), so recipes choose them.
Shapes   B images on this process, N = B * world size, D = widths[-1] or the width of the base's embeddings.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from harness.api import Backbone, Batch, Method, MethodConfig, Requirements, Step, TrainSet, Wrapped, coefficient
from harness.nn import all_gather, full_precision, mlp
from harness.nn.spanning_tree import tree_length


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """The published setting of T-REGS alone. base: the method it goes over, one whose steps hold projections."""

    title: ClassVar[str] = "T-REGS"
    projects: ClassVar[bool] = True

    base: MethodConfig | None = None
    widths: tuple[int, ...] = (2048, 2048, 1024)  # projector without a base: Table 6, CIFAR; ImageNet: 4096, 4096, 1024
    ssl: float = coefficient(
        10.0, low=0.01, high=10.0, source="beta, sec. 5.1; Table 4: 1 to 10; lower end ours, for a mean over D"
    )
    length: float = coefficient(
        0.2, low=3e-3, high=1.0, source="gamma, sec. 5.1; range from CLIP's to Table 4's highest"
    )
    sphere: float = coefficient(
        8e-4, low=2e-5, high=1.0, source="lambda, sec. 5.1; range from CLIP's to Table 4's highest"
    )

    def __post_init__(self) -> None:
        if self.base is not None and (isinstance(self.base, Config) or not self.base.projects):
            raise ValueError(
                "T-REGS goes over a method that gives its projections (simclr, vicreg and others), or over "
                f"none; its base is {self.base.label}"
            )

    @property
    def label(self) -> str:
        return self.title if self.base is None else f"{self.title} ({self.base.label})"

    def requirements(self) -> Requirements:
        return Requirements() if self.base is None else self.base.requirements()

    def weights(self) -> dict[str, float]:
        return super().weights() if self.base is None else self.base.weights() | super().weights()

    def build(self, backbone: Backbone, train: TrainSet) -> "TREGS":
        return TREGS(self, Invariance(self, backbone) if self.base is None else self.base.build(backbone, train))


class Invariance(Method[Config]):
    """The base of T-REGS alone: a projector, and the distance of the two views."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths)

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        return Step(squared_distance(a_BD, b_BD), {}, features[0], a_BD, projections=(a_BD, b_BD))


class TREGS(Wrapped[Config]):
    def step(self, batch: Batch) -> Step:
        base: Step = self.base.step(batch)
        lengths, spheres = zip(*(t_reg(z_BD) for z_BD in base.projections), strict=True)
        terms: dict[str, Any] = {"ssl": base.loss, "length": sum(lengths), "sphere": sum(spheres)}
        k = self.config
        loss = k.ssl * terms["ssl"] + k.length * terms["length"] + k.sphere * terms["sphere"]
        return replace(base, loss=loss, terms=base.terms | terms)


@full_precision
def squared_distance(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Mean over images of |a - b|^2, summed over D (L_MSE, sec. 5)."""
    return (a_BD - b_BD).square().sum(dim=1).mean()


@full_precision
def t_reg(z_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs. 4 and 5 of one view: minus the length of the tree over N, and the distance to the unit sphere."""
    z_ND = all_gather(z_BD)
    return -tree_length(z_ND) / len(z_ND), (z_ND.norm(dim=1) - 1).square().mean()
