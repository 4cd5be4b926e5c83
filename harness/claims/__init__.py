"""Claims: what somebody printed, as typed data with its source. results/claims/ holds one TOML file per source.

Five kinds. `value`: our number equals the printed one. `ordering`: one recipe beats another. `equivalence`: two recipes
differ by little. `collapse`: with this setting training collapses, or trains. `bound`: a measured number of every run
lies on one side of a bound. All but a value may be checked at a reduced scale, and then say what is reduced. Where the
reduced scale is known not to show the pattern, `known` says so, and *differs* is expected.

Claims that people argue about stand in the TOML file; tables of a hundred rows in a CSV file beside it, with the same
fields, whose defaults the TOML file states once under [bulk].
"""

from harness.claims.kinds import (
    KINDS,
    Allowance,
    Bound,
    Claim,
    Collapse,
    Equivalence,
    File,
    Ordering,
    Paper,
    Seeds,
    Source,
    Spread,
    Value,
)
from harness.claims.loader import FOLDER, SCHEMA, load, load_all, parse

__all__ = [
    "FOLDER", "KINDS", "SCHEMA", "Allowance", "Bound", "Claim", "Collapse", "Equivalence", "File", "Ordering", "Paper",
    "Seeds", "Source", "Spread", "Value", "load", "load_all", "parse",
]  # fmt: skip
