"""Check a table once, before anything costly looks at it, and write what is left."""

from typing import Literal

import pandas as pd

from model_name.core import dataframes
from model_name.core.features.fitting import TargetData, fit_features
from model_name.io.prepared_tables import write_prepared
from model_name.io.storage import atomic_write
from model_name.jobs.base import SHOWN_HASH, Job
from model_name.results import PreparationResult, findings_path


class PreparationJob(Job):
    """Hold the table against its schema and write it where the next steps find it."""

    KIND: Literal["PreparationJob"] = "PreparationJob"

    @property
    def needs_mlflow(self) -> bool:
        """It looks at no version."""
        return False

    def run(self) -> PreparationResult:
        """As of `Job`.

        Raises:
            DataError: The table does not fit its schema or cannot be split.
            ConfigError: A metric does not fit the task, or the schema asks for features that there are not.
        """
        _ = self.measures  # a metric that does not fit is cheaper to learn of before a table is read
        checked = self.read_and_validate()
        train, _ = self.split_by.split(checked.frame, self.schema_)
        self._require_features(checked.frame.iloc[train])
        fingerprint = dataframes.fingerprint(checked.frame)[:SHOWN_HASH]
        path = f"{self.build.rstrip('/')}/prepared/{self.name}-{fingerprint}.parquet"
        result = PreparationResult(
            source=self.table.path,
            table=write_prepared(path, checked.frame, self.schema_),
            fingerprint=fingerprint,
            rows=checked.report.rows,
            kept=checked.report.kept,
            findings=tuple(checked.report.messages()),
            ranges=ranges(checked.frame),
        )
        with atomic_write(findings_path(path)) as file:
            file.write(result.model_dump_json(indent=1).encode())
        return result

    def _require_features(self, train: pd.DataFrame) -> None:
        """What the schema asks for must be there, such as the holidays of a country: cheaper to learn now."""
        schema = self.schema_
        columns = dataframes.to_columns(train, schema)
        fit_features(schema, columns, TargetData.for_table(schema, dataframes.target_codes(train, schema)))


def ranges(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The first and the last moment of each datetime column that has any."""
    moments = table.select_dtypes("datetime").dropna(axis="columns", how="all")
    return {str(name): (moments[name].min().isoformat(), moments[name].max().isoformat()) for name in moments}
