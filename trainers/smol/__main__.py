"""`python -m nprdsl.trainers.smol`; says what is missing where the extra `train` is."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command; gives its exit code."""
    try:
        from nprdsl.trainers.smol.command import main as command
    except ModuleNotFoundError as error:
        missing = f"error: the recipe needs {error.name}; install it with: "
        print(f"{missing}pip install 'nprdsl[train,smol]'", file=sys.stderr)
        return 2
    return command()


if __name__ == "__main__":
    sys.exit(main())
