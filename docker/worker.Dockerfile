# The worker: PyTorch, OpenCLIP, and optionally weights. Build it from the project's folder:
#
#     docker build -f docker/worker.Dockerfile -t maskscore-worker:0.1.0-gpu .
#
# BASE_IMAGE       any image with glibc, Python 3.11 and its venv module; PyTorch includes CUDA.
# TORCH_INDEX_URL  another package index for PyTorch, for example its CPU builds; empty: PyPI's CUDA build.
# EXTRAS           extras of pyproject.toml, separated by spaces: `worker` is required, `otel` sends traces.
# WEIGHTS          folder of the build context that is copied to /weights.
# Pass a pip.conf (mirror, proxy, certificates) as a secret: --secret id=pip,src=pip.conf. It is not in the image.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS requirements
WORKDIR /src
ARG EXTRAS="worker otel"
COPY pyproject.toml docker/requirements.py ./
# EXTRAS is split into words, one per extra.
# hadolint ignore=SC2086
RUN python3 requirements.py pyproject.toml ${EXTRAS} > requirements.txt && grep '^torch' requirements.txt > torch.txt

FROM ${BASE_IMAGE} AS wheel
WORKDIR /src
RUN python3 -m venv /build
COPY constraints.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /build/bin/pip install --no-cache-dir --constraint constraints.txt hatchling
COPY pyproject.toml README.md ./
COPY producer producer
COPY worker worker
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# Layers in the order of how rarely they change: PyTorch has gigabytes, the code kilobytes.
FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 maskscore \
    && useradd --uid 10001 --gid maskscore --no-create-home --home-dir /tmp --shell /usr/sbin/nologin maskscore \
    && python3 -m venv /opt/maskscore
ENV PATH=/opt/maskscore/bin:$PATH
COPY constraints.txt /opt/maskscore/
COPY --from=requirements /src/torch.txt /opt/maskscore/
ARG TORCH_INDEX_URL=
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-cache-dir ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"} \
    --constraint /opt/maskscore/constraints.txt --requirement /opt/maskscore/torch.txt
COPY --from=requirements /src/requirements.txt /opt/maskscore/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-cache-dir --constraint /opt/maskscore/constraints.txt --requirement /opt/maskscore/requirements.txt
ARG WEIGHTS=docker/weights
COPY ${WEIGHTS}/ /weights/
COPY --from=wheel /wheels/ /opt/maskscore/wheels/
RUN pip install --no-cache-dir --no-deps --no-index /opt/maskscore/wheels/*.whl

# The root file system may be read-only: the process writes only to /tmp (a tmpfs is sufficient).
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MASKSCORE_WEIGHTS=/weights \
    MASKSCORE_HTTP_PORT=9808
USER 10001:10001
EXPOSE 9808
# Stop it with a timeout above MASKSCORE_GRACE_S (25 s): docker stop --time 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=6 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['MASKSCORE_HTTP_PORT'] + '/livez', timeout=4)"]
ENTRYPOINT ["maskscore"]
CMD ["worker"]
