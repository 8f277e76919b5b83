# The server, and the worker for Kafka (--entrypoint model-name, kafka run ...): KServe, ONNX Runtime and the light half
# of the package; no torch, mlflow or scikit-learn.
ARG BASE=python:3.11-slim
FROM ${BASE} AS build
WORKDIR /build
COPY requirements.lock ./
COPY dist/*.whl ./
# The lock serves as constraints: the same versions as everywhere, of the few packages that this needs.
RUN python -m venv /opt/model-name \
 && /opt/model-name/bin/pip install --no-cache-dir --constraint requirements.lock "$(ls ./*.whl)[serving,kafka]"

FROM ${BASE}
COPY --from=build /opt/model-name /opt/model-name
ENV PATH=/opt/model-name/bin:${PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "model_name.serving"]
CMD ["--bundle", "/mnt/models"]
