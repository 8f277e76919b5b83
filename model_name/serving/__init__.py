"""Online inference: bundle, data plane and servers. Imports no torch, mlflow, pandas or scikit-learn."""
