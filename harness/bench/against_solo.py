"""solo-learn: the parts of its pretraining (vturrisi/solo-learn@9187ea3, version 1.0.6) in a plain loop.

Its transforms, its loader (`prepare_dataloader`), its losses and its LARS; not its LightningModule and Trainer, whose
backbones are its own and not a recipe's, and which would only add time. Translated: crops keep torchvision's range of
aspects, 3/4 to 4/3, and are bicubic; a blur is PIL's, of 0.1 to 2 pixels, both of which it cannot be told; flips come
last (ours: with the crop). Its online classifier sees both views, here the first, as ours. Images and network are
channels_last, as there.
"""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from harness.bench.against import Library, Pictures
from harness.recipe import View


class Solo(Library):
    name, package = "solo-learn", "solo"
    install = (
        "in an environment of its own, beside this project: pip install lightning einops wandb omegaconf, and "
        "git clone https://github.com/vturrisi/solo-learn && git -C solo-learn checkout 9187ea3, with it on PYTHONPATH"
    )
    methods = ("simclr", "vicreg")
    memory_format = torch.channels_last

    def load(self) -> None:
        from omegaconf import OmegaConf
        from solo.data.pretrain_dataloader import build_transform_pipeline, prepare_dataloader
        from solo.losses.simclr import simclr_loss_func
        from solo.losses.vicreg import vicreg_loss_func
        from solo.utils.lars import LARS

        self.settings, self.pipeline, self.loader = OmegaConf.create, build_transform_pipeline, prepare_dataloader
        self.losses, self.optimiser_class = (simclr_loss_func, vicreg_loss_func), LARS

    def make_loss(self, config: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        simclr, vicreg = self.losses
        if self.recipe.resolved()["method"]["name"] == "simclr":
            return lambda a, b, index: simclr(torch.cat([a, b]), index.repeat(2), config.temperature)
        halved = config.variance / 2  # there variance is a sum over the views
        return lambda a, b, index: vicreg(a, b, config.invariance, halved, config.covariance)

    def make_view(self, view: View, mean: list[float], std: list[float]) -> Callable[[Image.Image], Tensor]:
        brightness, contrast, saturation, hue = view.jitter
        jitter = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        settings = {
            "crop_size": view.px,
            "mean": mean,
            "std": std,
            "rrc": {"enabled": True, "crop_min_scale": view.scale[0], "crop_max_scale": view.scale[1]},
            "color_jitter": {"prob": view.jitter_p, **jitter},
            "grayscale": {"prob": view.grey},
            "gaussian_blur": {"prob": view.blur},
            "solarization": {"prob": view.solarize},
            "equalization": {"prob": 0.0},
            "horizontal_flip": {"prob": view.flip},
        }
        return self.pipeline("custom", self.settings(settings))

    def make_loader(self, pictures: Pictures, batch: int, workers: int) -> DataLoader[Any]:
        return self.loader(pictures, batch_size=batch, num_workers=workers)

    def lars(self, trust: float, **settings: Any) -> torch.optim.Optimizer:
        return self.optimiser_class(
            self.parts.parameters(), eta=trust, clip_lr=True, exclude_bias_n_norm=True, **settings
        )
