"""The training loop of four small encoders, and of other libraries at the same work, as one Markdown table.

    python tests/benchmarks/loop.py
    python tests/benchmarks/loop.py --against lightly,solo-learn

SimCLR on CIFAR-10 (HARNESS_DATA, or the hub) with solo-learn's views, or another --recipe; one `harness bench` each,
whose --help says how to have the libraries.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
VIT = "(('img_size',32),('patch_size',4),('embed_dim',192),('depth',6),('num_heads',3))"
ENCODERS = {  # settings, and images of a step: those that take seconds on a laptop
    "4 convolutions": (("encoder.name=convnet",), 256),
    "ResNet-10-T": (("encoder.name=resnet10t",), 256),
    "ViT, 6 blocks of 192": (("encoder.name=vit_tiny_patch16_224", f"encoder.options={VIT}"), 128),
    "ResNet-18, small stem": ((), 64),
}


def bench(recipe: str, settings: tuple[str, ...], batch: int, more: list[str]) -> dict[str, Any]:
    words = ["bench", recipe, "--batch", str(batch), "--format", "json", "--no-evals", *more]
    words += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run([sys.executable, "-m", "harness", *words], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def spread(figure: dict[str, float], form: str) -> str:
    return f"{figure['median']:{form}} ({figure['low']:{form}}–{figure['high']:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="")
    parser.add_argument("--recipe", default="simclr_cifar10_r18_e200", help="one with a ResNet-18")
    parser.add_argument("--repeats", default="5")
    parser.add_argument("--only", choices=ENCODERS, nargs="*", default=list(ENCODERS))
    arguments = parser.parse_args()
    libraries = [name for name in arguments.against.split(",") if name]
    header = ["encoder", "batch", "views/s", "forward and backward", "full loop", "efficiency", "MiB"]
    header += [column for name in libraries for column in (f"{name}", "its efficiency", f"ours / {name}")]
    print("| " + " | ".join(header) + " |")  # noqa: T201
    print("| --- |" + " --: |" * (len(header) - 1))  # noqa: T201
    found: dict[str, Any] = {}
    for encoder in arguments.only:
        settings, batch = ENCODERS[encoder]
        found = bench(
            arguments.recipe, settings, batch, ["--repeats", arguments.repeats, "--against", arguments.against]
        )
        row = [encoder, str(batch), f"{found['views_per_s']['median']:,.0f}"]
        row += [f"{found[name]['median']:,.1f}" for name in ("bare_images_per_s", "full_images_per_s")]
        row += [spread(found["efficiency"], ".2f"), f"{found['memory_bytes'] / 2**20:,.0f}"]
        for name in libraries:
            theirs = found["against"][name]
            row += [f"{theirs['full_images_per_s']['median']:,.1f}", spread(theirs["efficiency"], ".2f")]
            row.append(spread(theirs["ratio"], ".2f"))
        print("| " + " | ".join(row) + " |", flush=True)  # noqa: T201
    print(  # noqa: T201
        f"\nRates in images/s of two views; medians of {found['rounds']} rounds (lowest–highest). {found['device']}, "
        f"{found['threads']} threads, {found['precision']}"
        + (f", {found['workers']} loader processes for the others." if libraries else ".")
    )


if __name__ == "__main__":
    main()
