"""Freed blocks stay with the process, where glibc is the allocator."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from harness import allocator
{keep}
def step():
    return [torch.ones(10 * 2**20) for _ in range(2)][0].sum()
for _ in range(4):  # until the heap is as large as it gets
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: str, **environment: str) -> int:
    """Page faults of five steps that hold and free two blocks of 40 MiB, in a process of its own.

    Above 32 MiB glibc never learns by itself to keep them.
    """
    code = FAULTS.format(keep=keep)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_blocks_are_not_cleared_anew() -> None:
    assert faults("allocator.keep()") < faults("") / 3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_who_has_chosen_is_heeded() -> None:
    chosen = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    assert faults("allocator.keep()", **chosen) == pytest.approx(faults("", **chosen), rel=0.5)
