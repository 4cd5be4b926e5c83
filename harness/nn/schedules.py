"""Schedules as pure functions of the step."""

import math


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` (progress 0) to `end` (progress 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    """From `start` to `end`, constant after progress 1."""
    return start + (end - start) * min(1.0, progress)


def warmup_cosine(
    step: int, *, steps: int, warmup: int, peak: float, final: float = 0.0, reach_peak_early: bool = False
) -> float:
    """Linear from 0 over `warmup` steps, then a cosine to `final` over the rest.

    Step `warmup` is the first at the peak (VICReg, SSL-HSIC, BYOL); with `reach_peak_early` step `warmup - 1` already
    is (DINO's numpy.linspace, facebookresearch/dino@7c446df, utils.py, cosine_scheduler).
    """
    if step < warmup:
        return peak * step / max(1, warmup - reach_peak_early)
    return cosine(peak, final, (step - warmup) / max(1, steps - warmup))
