"""`python -m oodbench.cli` is the command line, as `python -m oodbench` and the script `oodbench` are."""

import sys

from oodbench.cli.app import app

if __name__ == "__main__":
    sys.exit(app())
