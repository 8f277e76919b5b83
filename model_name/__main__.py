"""`python -m model_name` is `model-name`."""

import sys

from model_name.scripts import main

sys.exit(main())
