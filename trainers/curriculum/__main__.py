"""`python -m nprdsl.trainers.curriculum`; says what is missing where the extra `train` is."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command; gives its exit code."""
    try:
        from nprdsl.trainers.curriculum.command import main as command
    except ModuleNotFoundError as error:
        missing = f"error: the curriculum needs {error.name}; install it with: "
        print(f"{missing}pip install 'nprdsl[train]'", file=sys.stderr)
        return 2
    return command()


if __name__ == "__main__":
    sys.exit(main())
