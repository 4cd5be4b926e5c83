"""Why no recipe can attempt a claim as things stand. Reads names only and imports nothing heavy."""

import re

from harness import registry
from harness.claims.kinds import Claim

# Backbones as papers print them that a timm name stands for. Twice as many channels everywhere, "ResNet-50 (x2)" or
# "RN50w2", is no timm model; a wider bottleneck, "N-R50 (x2)", is.
_TIMM = re.compile(
    r"(ResNet|Res|RN|R)-?\d+( \((?!x\d)[^()]*\))?"
    r"|N-R(esNet-)?\d+ \(x\d\)"
    r"|(ViT|DeiT|XCiT|Swin|ConvNeXt|RegNet|ResNeXt|RNXT)[\w/ -]*( \([^()]*\))?",
    re.IGNORECASE,
)


def obstacle(claim: Claim) -> str:
    """The first reason found, the most specific one first; empty where a recipe attempts the claim or could."""
    if claim.recipes:
        return ""
    if claim.obstacle:
        return claim.obstacle
    if claim.method not in registry.names("methods"):
        return f"no method {claim.method!r} in methods/"
    if claim.dataset not in registry.data_names():
        return f"no data set {claim.dataset!r} in harness/data/sets.py"
    protocol = getattr(claim, "protocol", "")  # of the kinds that measure a score
    if protocol and not any(ids.fullmatch(protocol) for ids in registry.protocol_ids().values()):
        return f"no protocol {protocol!r} in harness/evals/"
    if claim.backbone != "unstated" and not _TIMM.fullmatch(claim.backbone):
        return f"no encoder of harness/backbones.py is known to be {claim.backbone!r}"
    return ""
