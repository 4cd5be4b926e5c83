"""The command line: arguments, what is printed, exit codes. No logic, and no heavy import before a command runs.

A function is a command; its signature and docstring are the help. Exit codes: 0 fine, 1 a check failed, 2 the user's
input, 3 a run failed.
"""

from harness.cli import running, cluster, results  # isort: skip  # registers the commands, in the order of the help
from harness.cli.app import call

__all__ = ["call", "cluster", "results", "running"]
