"""Multi-crop: views of several sizes through one network (facebookresearch/dino@7c446df, MultiCropWrapper)."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn


def multi_crop(backbone: nn.Module, head: nn.Module, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """V views (B, 3, h, w) -> features (V * B, width) and head outputs (V * B, K), rows ordered view by view.

    One pass of the backbone per run of equally large views, so its batch norms see one resolution at a time; one pass
    of the head over all of them.
    """
    sizes = groupby(views, key=lambda view: view.shape[-2:])
    features = torch.cat([backbone(torch.cat(list(same))) for _, same in sizes])
    return features, head(features)
