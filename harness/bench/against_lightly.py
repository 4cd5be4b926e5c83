"""lightly: the parts of its SimCLR and VICReg examples (lightly-ai/lightly@e8d317f, examples/pytorch).

Translated: crops keep lightly's range of aspects, 3/4 to 4/3, which it cannot be told; a blur is PIL's, by radius;
where a view solarizes, that comes before the blur (ours: after). Its heads have other batch norms than the recipes of
solo-learn, so the head is the recipe's. No probe of its own: where the recipe trains one, a linear layer on the first
view's features. Memory stays contiguous, as in its examples.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from harness.bench.against import Library
from harness.recipe import View


class Lightly(Library):
    name, package = "lightly", "lightly"
    install = "in an environment of its own, beside this project: pip install lightly==1.6.0"
    methods = ("simclr", "vicreg")
    memory_format = torch.contiguous_format

    def load(self) -> None:
        os.environ.setdefault("LIGHTLY_DID_VERSION_CHECK", "True")  # which asks its server
        from lightly import loss
        from lightly.transforms import simclr_transform, vicreg_transform
        from lightly.utils import lars

        self.losses, self.simclr, self.vicreg, self.optimisers = loss, simclr_transform, vicreg_transform, lars

    def make_loss(self, config: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        if self.recipe.resolved()["method"]["name"] == "simclr":
            loss = self.losses.NTXentLoss(temperature=config.temperature)
        else:
            loss = self.losses.VICRegLoss(config.invariance, config.variance, config.covariance)
        return lambda a, b, index: loss(a, b)

    def make_view(self, view: View, mean: list[float], std: list[float]) -> Callable[[Image.Image], Tensor]:
        brightness, contrast, saturation, hue = view.jitter
        settings: dict[str, Any] = {
            "input_size": view.px, "min_scale": view.scale[0], "hf_prob": view.flip, "random_gray_scale": view.grey,
            "cj_prob": view.jitter_p, "cj_strength": 1.0, "cj_bright": brightness, "cj_contrast": contrast,
            "cj_sat": saturation, "cj_hue": hue, "gaussian_blur": view.blur, "sigmas": view.blur_sigma,
            "normalize": {"mean": mean, "std": std},
        }  # fmt: skip
        if view.solarize:
            return self.vicreg.VICRegViewTransform(solarize_prob=view.solarize, **settings)
        return self.simclr.SimCLRViewTransform(**settings)

    def lars(self, trust: float, **settings: Any) -> torch.optim.Optimizer:
        return self.optimisers.LARS(self.parts.parameters(), trust_coefficient=trust, **settings)
