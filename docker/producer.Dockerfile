# The producer: client, command line, metrics exporter and gateway, without PyTorch. Build it from the project's folder:
#
#     docker build -f docker/producer.Dockerfile -t maskscore-producer:0.1.0 .
#
# BASE_IMAGE  any image with Python 3.11 and its venv module.
# EXTRAS      extras of pyproject.toml, separated by spaces; `metrics` is for the exporter, `gateway` for the gateway.
# Pass a pip.conf (mirror, proxy, certificates) as a secret: --secret id=pip,src=pip.conf. It is not in the image.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS requirements
WORKDIR /src
ARG EXTRAS="formats gateway metrics report"
COPY pyproject.toml docker/requirements.py ./
# EXTRAS is split into words, one per extra.
# hadolint ignore=SC2086
RUN python3 requirements.py pyproject.toml ${EXTRAS} > requirements.txt

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

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 maskscore \
    && useradd --uid 10001 --gid maskscore --no-create-home --home-dir /tmp --shell /usr/sbin/nologin maskscore \
    && python3 -m venv /opt/maskscore
ENV PATH=/opt/maskscore/bin:$PATH
COPY constraints.txt /opt/maskscore/
COPY --from=requirements /src/requirements.txt /opt/maskscore/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-cache-dir --constraint /opt/maskscore/constraints.txt --requirement /opt/maskscore/requirements.txt
COPY --from=wheel /wheels/ /opt/maskscore/wheels/
RUN pip install --no-cache-dir --no-deps --no-index /opt/maskscore/wheels/*.whl

# The root file system may be read-only: the process writes only to /tmp (a tmpfs is sufficient).
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
STOPSIGNAL SIGTERM
# No health check: a producer is no server, and the orchestrator probes the ports of exporter and gateway.
HEALTHCHECK NONE
ENTRYPOINT ["maskscore"]
CMD ["--help"]
