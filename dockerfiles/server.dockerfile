# Image of the server, and of the Kafka worker (--entrypoint model-name, with the arguments `kafka run ...`). It has ONNX
# Runtime and KServe (for its gRPC messages), but no torch, mlflow or scikit-learn. The wheel holds the templates of the
# model card and of the OpenAPI document.
ARG BASE=python:3.11-slim
FROM ${BASE} AS build
WORKDIR /build
COPY requirements.lock ./
COPY dist/*.whl ./
# The lock file constrains the versions to those of every other environment; only the packages that are needed are installed.
RUN python -m venv /opt/model-name \
 && /opt/model-name/bin/pip install --no-cache-dir --constraint requirements.lock "$(ls ./*.whl)[serving,kafka,tracing]"

FROM ${BASE}
COPY --from=build /opt/model-name /opt/model-name
ENV PATH=/opt/model-name/bin:${PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "model_name.serving"]
CMD ["--bundle", "/mnt/models"]
