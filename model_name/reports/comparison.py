"""Typed result of a comparison of two versions; `model-name models diff --json` prints it."""

from typing import Literal

from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.reports.contract_diff import ContractChange


class ParameterChange(FrozenModel):
    """A hyperparameter that differs between the versions.

    Attributes:
        name: Name of the hyperparameter.
        a: Value in version a; None if it has no such hyperparameter.
        b: Value in version b; None if it has no such hyperparameter.
    """

    name: str
    a: str | None
    b: str | None


class MetricChange(FrozenModel):
    """A metric of both versions.

    Attributes:
        name: Name of the metric.
        a: Value of version a.
        b: Value of version b.
        better: Version that is better; empty if they are equal or the difference is not significant.
        low: Lower end of b - a with 95 % confidence, if it is known.
        high: Upper end of b - a.
        words: Description of the difference.
    """

    name: str
    a: float | None
    b: float | None
    better: Literal["a", "b", ""]
    low: float | None = None
    high: float | None = None
    words: str


class ImportanceChange(FrozenModel):
    """Importance of a feature in both versions.

    Attributes:
        feature: Name of the feature.
        a: Share of all contributions in version a.
        b: Share of all contributions in version b.
        rank_a: Rank in version a, from 1.
        rank_b: Rank in version b, from 1.
    """

    feature: str
    a: float | None
    b: float | None
    rank_a: int | None
    rank_b: int | None

    @property
    def rank_change(self) -> str:
        """Description of the change of the rank: `"up 2"`, `"new"`, ..."""
        if self.rank_a is None or self.rank_b is None:
            return "new" if self.rank_a is None else "gone"
        moved = self.rank_a - self.rank_b
        return "same rank" if not moved else f"{'up' if moved > 0 else 'down'} {abs(moved)}"


class VersionSummary(FrozenModel):
    """One of the two versions.

    Attributes:
        version: Number of the version.
        semver: Semantic version.
        aliases: Aliases of the version.
        kind: Kind of the model.
        created: Time of the registration, ISO 8601.
        run_id: ID of the training's MLflow run.
        table: Path of the table that it was trained on.
        held_out: Digest of the held-out rows.
        rows: Number of held-out rows; None if the version was not evaluated.
        features: Names of the features.
        bundle_bytes: Size of the bundle's files.
        gate: Decision of the gate.
    """

    version: str
    semver: str
    aliases: LaxTuple[str]
    kind: str
    created: str
    run_id: str
    table: str
    held_out: str
    rows: int | None
    features: LaxTuple[str]
    bundle_bytes: int
    gate: str


class Comparison(FrozenModel):
    """Differences between two versions of one model.

    Attributes:
        name: Name of the model.
        a: Version that the candidate is compared with, usually the older one.
        b: Candidate.
        sentence: Summary in one sentence.
        contract: Changes that affect clients or tables.
        parameters: Hyperparameters that differ.
        features_added: Features that only the candidate has.
        features_removed: Features that only the other version has.
        same_rows: Whether both were measured on the same held-out rows.
        measured: Description of the rows that the metrics were measured on.
        metrics: Metrics of both; empty if one version was not evaluated.
        importances: Feature importances by rank in the candidate; empty if one version was not explained.
        missing: Sentences about artifacts that could not be compared.
    """

    name: str
    a: VersionSummary
    b: VersionSummary
    sentence: str
    contract: LaxTuple[ContractChange]
    parameters: LaxTuple[ParameterChange]
    features_added: LaxTuple[str]
    features_removed: LaxTuple[str]
    same_rows: bool
    measured: str
    metrics: LaxTuple[MetricChange]
    importances: LaxTuple[ImportanceChange]
    missing: LaxTuple[str]
