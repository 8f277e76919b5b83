"""Write the HTML report of a version."""

from pathlib import Path
from typing import Literal

import mlflow
from pydantic import Field
from typing_extensions import override

from model_name.core.versions import LATEST, Ref
from model_name.errors import NotFoundError
from model_name.io.configs import exists
from model_name.io.registries import Version
from model_name.io.storage import atomic_write, read_bytes
from model_name.jobs.base import Job
from model_name.reports.artifacts import load_explanation, load_version_artifacts
from model_name.reports.model_report import render_report
from model_name.reports.search_run import load_search
from model_name.results import (
    EVALUATION_FILE,
    REPORT_FILE,
    EvaluationResult,
    ExplanationResult,
    PreparationResult,
    ReportResult,
    findings_path,
)


class ReportJob(Job):
    """Write the report of a version from the artifacts that the other jobs stored in its run.

    Attributes:
        ref: Version to report on: an alias, a number, a semantic version or `latest`.
        path: Path of the report; `BUILD/reports/NAME-VERSION.html` by default.
    """

    KIND: Literal["ReportJob"] = "ReportJob"
    ref: Ref = LATEST
    path: str = Field("", pattern=r"^$|\.html$")

    @override
    def run(self) -> ReportResult:
        """Write the report.

        Raises:
            NotFoundError: The version does not exist, or it was not evaluated.
        """
        version = self.registry.resolve(self.ref)
        bundle = self._bundle(version)
        artifacts = load_version_artifacts(self.registry, version, bundle)
        evaluation, gate = artifacts.evaluation, artifacts.gate
        if evaluation is None:
            raise NotFoundError(
                f"{version.title} has no {EVALUATION_FILE}, it was not evaluated",
                hint="run the EvaluationsJob for it first",
            )
        page = render_report(
            artifacts,
            evaluation,
            champion_explanation=self._champion_explanation(evaluation),
            search=load_search(artifacts.run),
            preparation=self._preparation(),
        )
        path = self.path or f"{self.build.rstrip('/')}/reports/{self.name}-{version.version}.html"
        with atomic_write(path) as file:
            file.write(page.encode())
        with self.mlflow.run("report", experiment=self.name, run_id=version.run_id):
            mlflow.log_text(page, REPORT_FILE)
        self.alerts.notify("reported", path)
        return ReportResult(
            accepted=gate.accepted if gate else True,
            version=version.version,
            semver=version.semver,
            alias=gate.alias if gate else "",
            metrics=evaluation.metrics,
            references=evaluation.references,
            gate=gate.model_dump(mode="json") if gate else {},
            bundle=str(bundle),
            report=path,
        )

    def _bundle(self, version: Version) -> Path:
        """Return the bundle that training left in the build folder, or else download it from the registry."""
        path = Path(self.build) / "bundles" / self.name / version.version
        return path if path.is_dir() else self.registry.download_bundle(version.version)

    def _champion_explanation(self, evaluation: EvaluationResult) -> ExplanationResult | None:
        """Load the explanation of the champion that the version was compared with."""
        champion = evaluation.champion and self.registry.find_version(evaluation.champion.version)
        return load_explanation(self.registry, champion) if champion else None

    def _preparation(self) -> PreparationResult | None:
        """Load the result of the preparation, if `table` is a prepared one."""
        path = findings_path(self.table.path)
        if not exists(path):
            return None
        return PreparationResult.model_validate_json(read_bytes(path))
