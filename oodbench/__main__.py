"""`python -m oodbench` is the command line."""

import sys

from oodbench.cli.app import app

if __name__ == "__main__":
    sys.exit(app())
