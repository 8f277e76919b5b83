"""Promote a version if it passes the gate: the thresholds, and no worse than the champion."""

import getpass
from typing import Literal

import mlflow
from loguru import logger
from pydantic import Field
from typing_extensions import override

from model_name.core.metrics import Metric
from model_name.core.schemas.strict_models import FrozenModel
from model_name.core.versions import CHALLENGER, CHAMPION, LATEST, PREVIOUS, Ref
from model_name.errors import ConfigError, NotFoundError
from model_name.io.audit import AuditTrail
from model_name.io.osvariables import env
from model_name.io.registries import Version
from model_name.jobs.base import Job
from model_name.results import (
    CONSTANT,
    EVALUATION_FILE,
    GATE_FILE,
    Champion,
    EvaluationResult,
    GateCheck,
    PromotionResult,
    passes_threshold,
)


class Gate(FrozenModel):
    """Conditions under which a version is promoted.

    Attributes:
        margin: Tolerated loss against the champion, as a share of the champion's metric.
        slice_margin: Tolerated loss on each slice; larger, because slices have fewer rows and noisier metrics.
        beats_constant: Whether the version must be better than a constant.
    """

    margin: float = Field(0.01, ge=0)
    slice_margin: float = Field(0.05, ge=0)
    beats_constant: bool = True

    def decide(self, evaluation: EvaluationResult) -> tuple[GateCheck, ...]:
        """Run the checks on an evaluation; the version may be promoted if all pass."""
        checks = [self._threshold(metric, evaluation) for metric in evaluation.measures if metric.threshold is not None]
        if self.beats_constant:
            checks.append(self._against_constant(evaluation))
        if evaluation.champion is not None:
            checks += self._against_champion(evaluation, evaluation.champion)
        return tuple(checks)

    def _threshold(self, metric: Metric, evaluation: EvaluationResult) -> GateCheck:
        value = evaluation.metrics[metric.name]
        comparison = "at least" if metric.greater_is_better else "at most"
        return GateCheck(
            name=f"{metric.name} threshold",
            passed=passes_threshold(metric, value),
            value=value,
            limit=metric.threshold,
            words=f"{metric.name} {_format_metric(value)} must be {comparison} {_format_metric(metric.threshold)}",
        )

    def _against_constant(self, evaluation: EvaluationResult) -> GateCheck:
        metric = evaluation.measures[0]
        value, constant = evaluation.metrics[metric.name], evaluation.references[CONSTANT][metric.name]
        passed = constant is None or (value is not None and metric.is_better(value, constant))
        description = (
            f"{metric.name} {_format_metric(value)} must be better than that of a constant, {_format_metric(constant)}"
        )
        return GateCheck(
            name=f"{metric.name} against a constant", passed=passed, value=value, limit=constant, words=description
        )

    def _against_champion(self, evaluation: EvaluationResult, champion: Champion) -> list[GateCheck]:
        if champion.problem:
            # Without a comparable champion the other checks decide; the audit trail records the reason.
            description = f"the champion {champion.semver} cannot be compared: {champion.problem}"
            return [GateCheck(name="champion", passed=True, value=None, limit=None, words=description)]
        metric = evaluation.measures[0]
        slices = [
            check_no_worse(
                metric, f" where {part.column} is {part.value}", part.metrics, part.champion, self.slice_margin
            )
            for part in evaluation.slices
            if part.champion
        ]
        return [check_no_worse(metric, "", evaluation.metrics, champion.metrics, self.margin), *slices]


class PromotionJob(Job):
    """Put a version through the gate. A refusal is a recorded result, not an error.

    Attributes:
        ref: Version to promote: an alias, a number, a semantic version or `latest`.
        gate: Conditions of the promotion.
        force: Whether to promote the version even if a check fails; needs an actor and a reason.
        actor: Name of the person or system that requests the promotion; MODEL_NAME_ACTOR or the user by default.
        reason: Reason for the promotion.
        rollout: Whether a rollout will move the alias `champion`; the gate then sets `challenger` only.
    """

    KIND: Literal["PromotionJob"] = "PromotionJob"
    ref: Ref = LATEST
    gate: Gate = Gate()
    force: bool = False
    actor: str = ""
    reason: str = ""
    rollout: bool = False

    @override
    def run(self) -> PromotionResult:
        """Decide on the version, set its aliases and append the decision to the audit trail.

        Raises:
            ConfigError: The promotion is forced without an actor or a reason.
            NotFoundError: The version does not exist, or it was not evaluated.
        """
        if self.force and not (self.actor and self.reason):
            raise ConfigError("forcing a promotion needs an actor and a reason", hint="--actor NAME --reason WORDS")
        version = self.registry.resolve(self.ref)
        checks = self.gate.decide(self._evaluation(version))
        passed = all(check.passed for check in checks)
        previous = self.registry.find_version(CHAMPION)
        promoted = passed or self.force
        alias = self._promote(version, previous) if promoted else ""
        actor = self.actor or env().model_name_actor or getpass.getuser()
        entry = AuditTrail(self.audit).append(
            actor=actor,
            event="refused" if not promoted else "promoted" if passed else "forced",
            subject=version.title,
            details={
                "version": version.version,
                "alias": alias,
                "reason": self.reason,
                "previous": previous.version if previous else "",
                "checks": [check.model_dump() for check in checks],
            },
        )
        result = PromotionResult(
            accepted=promoted,
            version=version.version,
            semver=version.semver,
            alias=alias,
            forced=promoted and not passed,
            actor=actor,
            reason=self.reason,
            checks=checks,
            previous=previous.version if previous else "",
            entry=entry.number,
        )
        self.registry.set_tags(version, gate="passed" if passed else "forced" if self.force else "refused")
        with self.mlflow.run("promote", experiment=self.name, run_id=version.run_id):
            mlflow.log_dict(result.model_dump(mode="json"), GATE_FILE)
        self._notify(version, result)
        return result

    def _evaluation(self, version: Version) -> EvaluationResult:
        try:
            path = self.registry.download_artifact(version, EVALUATION_FILE)
        except NotFoundError as err:
            raise NotFoundError(
                f"{version.title} was not evaluated", hint="run the EvaluationsJob for it first"
            ) from err
        return EvaluationResult.model_validate_json(path.read_text(encoding="utf-8"))

    def _promote(self, version: Version, previous: Version | None) -> str:
        self.registry.set_alias(CHALLENGER, version)
        if self.rollout:
            return CHALLENGER
        if previous is not None and previous.version != version.version:
            self.registry.set_alias(PREVIOUS, previous)
        self.registry.set_alias(CHAMPION, version)
        return CHAMPION

    def _notify(self, version: Version, result: PromotionResult) -> None:
        for check in result.checks:
            logger.info("{}: {}", "passed" if check.passed else "FAILED", check.words)
        if result.accepted:
            self.alerts.notify(
                "promoted", f"{version.title} is {result.alias}" + (" (forced)" if result.forced else "")
            )
        else:
            reasons = "; ".join(check.words for check in result.checks if not check.passed)
            self.alerts.notify("refused", f"{version.title}: {reasons}")


def check_no_worse(
    metric: Metric,
    where: str,
    metrics: dict[str, float | None],
    champion: dict[str, float | None],
    margin: float,
) -> GateCheck:
    """Check that a metric is worse than the champion's by at most a share of it."""
    value, champion_value = metrics[metric.name], champion[metric.name]
    name = f"{metric.name} against the champion{where}"
    if champion_value is None:
        return GateCheck(name=name, passed=True, value=value, limit=None, words=f"{name}: not defined for the champion")
    slack = abs(champion_value) * margin
    limit = champion_value - slack if metric.greater_is_better else champion_value + slack
    passed = value is not None and not metric.is_better(limit, value)
    comparison = "at least" if metric.greater_is_better else "at most"
    bound = f"{comparison} {_format_metric(limit)} (the champion has {_format_metric(champion_value)})"
    description = f"{metric.name}{where} {_format_metric(value)} must be {bound}"
    return GateCheck(name=name, passed=passed, value=value, limit=limit, words=description)


def _format_metric(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.5g}"
