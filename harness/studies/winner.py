"""The winner of a study as a file of sweeps/."""

import re
from collections.abc import Sequence
from textwrap import fill

from harness import registry
from harness.studies.selection import Comparison
from harness.studies.study import Final, Study


def recipe(study: Study, final: Final, comparisons: Sequence[Comparison]) -> str:
    """The winner as a file of sweeps/: the recipe that the study varied, with the winner's settings."""
    chosen = comparisons[final.winner or 0]
    base, name = registry.recipe_names()[study.recipe], _name(study)
    span = f"{chosen.difference:+.2f}, interval {chosen.low:+.2f} to {chosen.high:+.2f}"
    head = fill(
        f"{chosen.finalist.label.capitalize()} of study {study.name}, which varied {study.recipe}. Chosen by "
        f"{study.objective} on held-out images with seeds {', '.join(map(str, final.seeds))}: better than the recipe's "
        f"own settings by {span}.",
        width=116, break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    settings = "".join(f"    {_quoted(text)},\n" for text in chosen.finalist.overrides)
    return f'''"""The winner of study {study.name}.

{head}
"""

from functools import reduce

from harness.recipe import Recipe
from harness.registry import override
from sweeps import {base}

SETTINGS = (
{settings})


def {name}() -> Recipe:
    """{study.recipe} with the winner's settings."""
    return reduce(override, SETTINGS, {base}.{study.recipe}())
'''


def _name(study: Study) -> str:
    """<recipe>_tuned; with the study's name too if another file has that one."""
    name = f"{study.recipe}_tuned"
    return name if registry.recipe_names().get(name, module(study)) == module(study) else f"{name}_{module(study)}"


def module(study: Study) -> str:
    """The study's name as that of a Python file."""
    return re.sub(r"\W", "_", study.name)


def _quoted(text: str) -> str:
    """As ruff formats it."""
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'
