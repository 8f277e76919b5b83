# What every step of a pipeline runs in; PyTorch's wheels bring CUDA, and run without a GPU as well.
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
# A numeric user, so that Kubernetes can see that it is not root; everything written goes to volumes and /tmp.
ENV PATH=/opt/model-name/bin:${PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp \
    OMP_WAIT_POLICY=PASSIVE
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["model-name"]
