# An image with Ray, for backfills on a cluster (docs/guides/backfill.md). It adds about 0.3 GB, so the service's images do not have it.
#
#     docker build -f deploy/image/ray.Dockerfile --build-arg BASE=stream-guard:gpu -t stream-guard-ray:gpu .
#
# BASE is an image of the service, from `make image-gpu` or `make image`. Secrets, both optional: `ca`, `index`, as in the Dockerfile.
ARG BASE=stream-guard:gpu
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
# Its tag is given with --build-arg.
# hadolint ignore=DL3006
FROM ${BASE} AS base

FROM ${PYTHON_IMAGE} AS builder
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY --chmod=0555 deploy/image/with_mirror.sh /usr/local/bin/with_mirror
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv PYTHONSAFEPATH=1
WORKDIR /src
COPY requirements/uv.txt requirements/uv.txt
COPY --from=base /opt/venv /opt/venv
# KubeRay starts jobs through Ray's dashboard, which is in its extra "default". What the base has stays as it is.
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index \
    with_mirror python -m pip install --no-cache-dir --require-hashes --requirement requirements/uv.txt \
    && uv pip freeze --exclude-editable | grep '==' > there.txt \
    && with_mirror uv pip install --constraint there.txt 'ray[data,default]==2.60.0' 'pyarrow>=21,<24'

FROM base
COPY --from=builder /opt/venv /opt/venv
ENV RAY_USAGE_STATS_ENABLED=0
