"""Run the command line: `python -m model_name` is the same as `model-name`."""

import sys

from model_name.scripts import main

sys.exit(main())
