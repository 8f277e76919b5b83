"""Decorator of all components: nothing is installed when a step starts, because the image contains it."""

from functools import partial

from kfp import dsl

# Placeholder that the compiler replaces by the real image. KFP's local runner warns of image names without "python".
IMAGE = "model-name-python"

component = partial(dsl.component, base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
