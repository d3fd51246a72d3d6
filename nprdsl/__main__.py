"""`python -m nprdsl`: the command line, for launchers that start modules."""

from nprdsl.cli.main import main

if __name__ == "__main__":
    main()
