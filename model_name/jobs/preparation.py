"""Validate a table once, before any expensive step, and write the rows that are left."""

from typing import Literal

import pandas as pd
from typing_extensions import override

from model_name.core import dataframes
from model_name.core.features.fitting import TargetData, fit_features
from model_name.io.prepared_tables import write_prepared
from model_name.io.storage import atomic_write
from model_name.jobs.base import FINGERPRINT_DIGITS, Job
from model_name.results import PreparationResult, findings_path


class PreparationJob(Job):
    """Validate the table against its schema and write it for the next steps."""

    KIND: Literal["PreparationJob"] = "PreparationJob"

    @property
    @override
    def needs_mlflow(self) -> bool:
        return False

    @override
    def run(self) -> PreparationResult:
        """Validate the table and write it.

        Raises:
            DataError: The table does not fit its schema or cannot be split.
            ConfigError: A metric does not fit the task, or a feature of the schema is not available.
        """
        _ = self.resolved_metrics  # reject a metric that does not fit before reading the table
        checked = self.read_and_validate()
        train, _ = self.resolved_splitter.split(checked.frame, self.schema_)
        self._check_features(checked.frame.iloc[train])
        fingerprint = dataframes.fingerprint(checked.frame)[:FINGERPRINT_DIGITS]
        path = f"{self.build.rstrip('/')}/prepared/{self.name}-{fingerprint}.parquet"
        result = PreparationResult(
            source=self.table.path,
            table=write_prepared(path, checked.frame, self.schema_),
            fingerprint=fingerprint,
            rows=checked.report.rows,
            kept=checked.report.kept,
            findings=tuple(checked.report.messages()),
            ranges=column_ranges(checked.frame),
        )
        with atomic_write(findings_path(path)) as file:
            file.write(result.model_dump_json(indent=1).encode())
        return result

    def _check_features(self, train: pd.DataFrame) -> None:
        """Fit the features once, to fail early if one is not available, such as the holidays of a country."""
        schema = self.schema_
        columns = dataframes.to_columns(train, schema)
        fit_features(schema, columns, TargetData.for_table(schema, dataframes.target_codes(train, schema)))


def column_ranges(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the first and the last moment of each datetime column that is not empty."""
    moments = table.select_dtypes("datetime").dropna(axis="columns", how="all")
    return {str(name): (moments[name].min().isoformat(), moments[name].max().isoformat()) for name in moments}
