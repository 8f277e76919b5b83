"""What all components share: nothing is installed when a step starts, the image holds it."""

from functools import partial

from kfp import dsl

# The compiler puts the real image in. The local runner warns of names without "python" in them.
IMAGE = "model-name-python"

component = partial(dsl.component, base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
