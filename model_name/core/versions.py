"""Semantic versions of models, and the recipe from which the next version follows."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import BeforeValidator

from model_name.core.models.model import Model
from model_name.core.schemas.strict_models import FrozenModel

Ref = Annotated[str, BeforeValidator(lambda raw: str(raw) if type(raw) is int else raw)]
"""An alias, a version number, a semantic version or `latest`. An integer is accepted too, from `--set job.ref=3`."""

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous-champion"
LATEST = "latest"

NON_RECIPE_PARAMETERS = frozenset({"random_state", "n_jobs", "threads"})
"""Parameters that are not part of the recipe, because they change how a model is fitted but not its kind."""

SEMVER = re.compile(r"\A(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\Z")


class Semver(FrozenModel):
    """MAJOR.MINOR.PATCH of a model version."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a text such as `1.2.3`.

        Raises:
            ValueError: The text is not of the form MAJOR.MINOR.PATCH.
        """
        match = SEMVER.match(text)
        if match is None:
            raise ValueError(f"{text!r} is not of the form MAJOR.MINOR.PATCH")
        return cls(major=int(match[1]), minor=int(match[2]), patch=int(match[3]))

    def __str__(self) -> str:
        """Format the version as `1.2.3`."""
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """Key that sorts versions."""
        return (self.major, self.minor, self.patch)


class Recipe(FrozenModel):
    """Everything that defines a version, except its data.

    Attributes:
        contract: Hash of the input and output schema that clients see.
        model: Hash of the kind of model, its hyperparameters, features, costs, calibration and compression.
    """

    contract: str
    model: str

    @classmethod
    def for_model(cls, model: Model, export: tuple[Any, ...] = ()) -> Self:
        """Compute the recipe of a fitted model. Fitted values, such as categories, are data and not part of it.

        Args:
            model: The fitted model.
            export: Settings of the export, such as the compression.
        """
        features = [feature.recipe for feature in model.features.columns]
        params = sorted(
            (name, value) for name, value in model.get_params().items() if name not in NON_RECIPE_PARAMETERS
        )
        decision = model.decision.recipe
        # A default decision is left out, so that the recipes of versions older than decisions stay valid.
        text = repr((model.KIND, params, features, *([decision] if any(decision) else []), *export))
        return cls(contract=model.schema_.fingerprint, model=sha256(text.encode()).hexdigest()[:16])


def next_semver(history: Sequence[tuple[Semver, Recipe]], recipe: Recipe) -> Semver:
    """Compute the version after the highest so far.

    Args:
        history: Version and recipe of all earlier versions.
        recipe: Recipe of the new version.

    Returns:
        The next MAJOR version if the contract changed, MINOR if the recipe changed, else PATCH; 1.0.0 if it is the
        first.
    """
    if not history:
        return Semver(major=1, minor=0, patch=0)
    latest, before = max(history, key=lambda entry: entry[0].sort_key)
    if before.contract != recipe.contract:
        return Semver(major=latest.major + 1, minor=0, patch=0)
    if before.model != recipe.model:
        return Semver(major=latest.major, minor=latest.minor + 1, patch=0)
    return Semver(major=latest.major, minor=latest.minor, patch=latest.patch + 1)
