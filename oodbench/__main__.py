"""`python -m oodbench` is the command line."""

import sys

from oodbench.cli.main import app

if __name__ == "__main__":
    sys.exit(app())
