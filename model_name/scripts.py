"""Entry point of the command line `model-name`."""

import sys

from model_name.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
