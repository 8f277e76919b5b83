"""The online half: a bundle, the data plane over it, and the server. No torch, mlflow, pandas or scikit-learn."""
