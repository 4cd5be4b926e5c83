"""Random numbers without state: every generator is made anew from the seed and its place in the run.

So a resumed run needs no generator states, and an interrupted run equals an uninterrupted one. What stays
non-deterministic: atomic additions on GPUs (torch.use_deterministic_algorithms is the user's choice).
"""

import hashlib

import torch


def fold(seed: int, *place: int | str) -> int:
    """A 63-bit seed for one place, e.g. fold(0, "step", 17)."""
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *place: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(fold(seed, *place))


def seed_global(seed: int, *place: int | str) -> None:
    """Seed torch's global generators (initialisation, dropout, drop path) for one place."""
    torch.manual_seed(fold(seed, *place))
