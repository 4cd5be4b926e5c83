"""`python -m harness` and the console script `harness`."""

import sys


def main() -> None:
    from harness.cli import call

    sys.exit(call(sys.argv[1:]))


if __name__ == "__main__":
    main()
