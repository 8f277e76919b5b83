"""The gate: a version becomes challenger, and champion, only if it is good enough and no worse than the champion."""

import getpass
from typing import Literal

import mlflow
from loguru import logger
from pydantic import Field

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
    """When a version may be promoted.

    Attributes:
        margin: How much worse than the champion it may be, as a share of the champion's value.
        slice_margin: The same on each slice, which is smaller and so noisier.
        beats_constant: Whether it must be better than a constant, that is, have learnt something.
    """

    margin: float = Field(0.01, ge=0)
    slice_margin: float = Field(0.05, ge=0)
    beats_constant: bool = True

    def decide(self, evaluation: EvaluationResult) -> tuple[GateCheck, ...]:
        """Every check of a version; it may be promoted if all pass."""
        checks = [self._threshold(metric, evaluation) for metric in evaluation.measures if metric.threshold is not None]
        if self.beats_constant:
            checks.append(self._against_constant(evaluation))
        if evaluation.champion is not None:
            checks += self._against_champion(evaluation, evaluation.champion)
        return tuple(checks)

    def _threshold(self, metric: Metric, evaluation: EvaluationResult) -> GateCheck:
        value = evaluation.metrics[metric.name]
        word = "at least" if metric.greater_is_better else "at most"
        return GateCheck(
            name=f"{metric.name} threshold",
            passed=passes_threshold(metric, value),
            value=value,
            limit=metric.threshold,
            words=f"{metric.name} {_number(value)} must be {word} {_number(metric.threshold)}",
        )

    def _against_constant(self, evaluation: EvaluationResult) -> GateCheck:
        metric = evaluation.measures[0]
        value, theirs = evaluation.metrics[metric.name], evaluation.references[CONSTANT][metric.name]
        passed = theirs is None or (value is not None and metric.is_better(value, theirs))
        words = f"{metric.name} {_number(value)} must be better than that of a constant, {_number(theirs)}"
        return GateCheck(
            name=f"{metric.name} against a constant", passed=passed, value=value, limit=theirs, words=words
        )

    def _against_champion(self, evaluation: EvaluationResult, champion: Champion) -> list[GateCheck]:
        if champion.problem:
            # Nothing to compare with: the thresholds alone decide, and the trail says so.
            words = f"the champion {champion.semver} cannot be compared: {champion.problem}"
            return [GateCheck(name="champion", passed=True, value=None, limit=None, words=words)]
        metric = evaluation.measures[0]
        slices = [
            no_worse(metric, f" where {part.column} is {part.value}", part.metrics, part.champion, self.slice_margin)
            for part in evaluation.slices
            if part.champion
        ]
        return [no_worse(metric, "", evaluation.metrics, champion.metrics, self.margin), *slices]


class PromotionJob(Job):
    """Put a version through the gate. A refusal is a result that is recorded, not an error.

    Attributes:
        ref: Which version: an alias, a number, a semantic version or `latest`.
        gate: When it passes.
        force: Promote it whatever the gate says; needs an actor and a reason.
        actor: Who asks; by default MODEL_NAME_ACTOR, or the user.
        reason: Why.
        rollout: Whether a rollout will move the champion; then the gate stops at challenger.
    """

    KIND: Literal["PromotionJob"] = "PromotionJob"
    ref: Ref = LATEST
    gate: Gate = Gate()
    force: bool = False
    actor: str = ""
    reason: str = ""
    rollout: bool = False

    def run(self) -> PromotionResult:
        """As of `Job`.

        Raises:
            ConfigError: Forced without an actor or a reason.
            NotFoundError: There is no such version, or it was not evaluated.
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
        self._tell(version, result)
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

    def _tell(self, version: Version, result: PromotionResult) -> None:
        for check in result.checks:
            logger.info("{} {}", "passed" if check.passed else "FAILED", check.words)
        if result.accepted:
            self.alerts.notify(
                "promoted", f"{version.title} is {result.alias}" + (" (forced)" if result.forced else "")
            )
        else:
            why = "; ".join(check.words for check in result.checks if not check.passed)
            self.alerts.notify("refused", f"{version.title}: {why}")


def no_worse(
    metric: Metric,
    where: str,
    metrics: dict[str, float | None],
    champion: dict[str, float | None],
    margin: float,
) -> GateCheck:
    """Whether a value is no worse than the champion's by more than a share of it."""
    value, theirs = metrics[metric.name], champion[metric.name]
    name = f"{metric.name} against the champion{where}"
    if theirs is None:
        return GateCheck(name=name, passed=True, value=value, limit=None, words=f"{name}: not defined for the champion")
    slack = abs(theirs) * margin
    limit = theirs - slack if metric.greater_is_better else theirs + slack
    passed = value is not None and not metric.is_better(limit, value)
    word = "at least" if metric.greater_is_better else "at most"
    words = (
        f"{metric.name}{where} {_number(value)} must be {word} {_number(limit)} (the champion has {_number(theirs)})"
    )
    return GateCheck(name=name, passed=passed, value=value, limit=limit, words=words)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.5g}"
