"""Imports of a worker process."""

import subprocess
import sys

MODULES = (
    "model_name.scripts",
    "model_name.cli.kafka_commands",
    "model_name.kafka.worker.worker_process",
    "model_name.kafka.worker.worker_settings",
)
HEAVY = ("pandas", "pyarrow", "sklearn", "torch", "mlflow", "kserve", "lightning", "shap")


def test_a_worker_imports_no_training_library() -> None:
    code = f"import sys, {', '.join(MODULES)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
