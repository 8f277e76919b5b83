"""Semantic versions of models: what changed decides which number grows."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import BeforeValidator

from model_name.core.models.model import Model
from model_name.core.schemas.strict_models import FrozenModel

Ref = Annotated[str, BeforeValidator(lambda raw: str(raw) if type(raw) is int else raw)]
"""An alias, a version number, a semantic version or `latest`; `--set job.ref=3` makes a number of a number."""

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous-champion"
LATEST = "latest"

NON_RECIPE_PARAMETERS = frozenset({"random_state", "n_jobs", "threads"})
"""Parameters that change how a model is made, but not what it is."""

SEMVER = re.compile(r"\A(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\Z")


class Semver(FrozenModel):
    """MAJOR.MINOR.PATCH of a model version."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1.2.3`.

        Raises:
            ValueError: It is not a semantic version.
        """
        found = SEMVER.match(text)
        if found is None:
            raise ValueError(f"{text!r} is not of the form MAJOR.MINOR.PATCH")
        return cls(major=int(found[1]), minor=int(found[2]), patch=int(found[3]))

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """What it sorts by."""
        return (self.major, self.minor, self.patch)


class Recipe(FrozenModel):
    """What a version was made by, data apart.

    Attributes:
        contract: Hash of the input and output schema that clients see.
        model: Hash of the kind of model, its hyperparameters, features, costs, calibration and how it was made smaller.
    """

    contract: str
    model: str

    @classmethod
    def for_model(cls, model: Model, export: tuple[Any, ...] = ()) -> Self:
        """The recipe of a fitted model. Fitted values, such as the categories found, are data, not recipe.

        Args:
            model: Fitted.
            export: What was done to it on its way into the bundle.
        """
        features = [feature.recipe for feature in model.features.columns]
        params = sorted((name, value) for name, value in model.get_params().items() if name not in NON_RECIPE_PARAMETERS)
        decided = model.decision.recipe
        # What is as it is by default is left out, so that recipes from before there were decisions stay the same.
        made_by = repr((model.KIND, params, features, *([decided] if any(decided) else []), *export))
        return cls(contract=model.schema_.fingerprint, model=sha256(made_by.encode()).hexdigest()[:16])


def next_semver(history: Sequence[tuple[Semver, Recipe]], recipe: Recipe) -> Semver:
    """The version after the highest so far: MAJOR for a changed contract, MINOR for a changed recipe, else PATCH.

    The first version is 1.0.0.
    """
    if not history:
        return Semver(major=1, minor=0, patch=0)
    latest, before = max(history, key=lambda entry: entry[0].sort_key)
    if before.contract != recipe.contract:
        return Semver(major=latest.major + 1, minor=0, patch=0)
    if before.model != recipe.model:
        return Semver(major=latest.major, minor=latest.minor + 1, patch=0)
    return Semver(major=latest.major, minor=latest.minor, patch=latest.patch + 1)
