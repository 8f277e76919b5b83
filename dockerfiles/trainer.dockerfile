# Image of the pipeline steps and of the explainer. PyTorch's wheels contain CUDA, and run without a GPU as well.
ARG BASE=python:3.11-slim
FROM ${BASE} AS build
WORKDIR /build
COPY requirements.lock ./
COPY dist/*.whl ./
RUN python -m venv /opt/model-name \
 && /opt/model-name/bin/pip install --no-cache-dir --requirement requirements.lock \
 && /opt/model-name/bin/pip install --no-cache-dir --no-deps ./*.whl

FROM ${BASE}
COPY --from=build /opt/model-name /opt/model-name
# The user is numeric, so that Kubernetes can verify that it is not root. Files are written only to volumes and /tmp.
ENV PATH=/opt/model-name/bin:${PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp \
    OMP_WAIT_POLICY=PASSIVE
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["model-name"]
