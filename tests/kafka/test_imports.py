import subprocess
import sys

HEAVY = ("pandas", "pyarrow", "sklearn", "torch", "mlflow", "kserve", "lightning", "shap")


def test_a_worker_imports_no_training_library() -> None:
    modules = "model_name.scripts, model_name.kafka.worker.worker_process, model_name.kafka.worker.worker_settings"
    code = f"import sys, {modules}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
