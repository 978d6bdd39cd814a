"""``python -m maskscore``: the same as the console script."""

from maskscore.cli import main

if __name__ == "__main__":
    main()
