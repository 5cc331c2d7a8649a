# syntax=docker/dockerfile:1
# Two targets: `gpu` (vLLM on CUDA) and `cpu` (vLLM on the CPU, with the demo model, for trying it out).
#
#     docker build --target gpu -t stream-guard:gpu .
#     docker build --target cpu -t stream-guard:cpu .
#
# Pin the base by its digest where you build for production: --build-arg PYTHON_IMAGE=python:3.12.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

# What both builders share: a compiler, and uv by its hash.
FROM ${PYTHON_IMAGE} AS builder
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The base is pinned; a compiler of its time is all that is asked for, and it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv
WORKDIR /src
COPY requirements/ requirements/
RUN --mount=type=cache,target=/root/.cache \
    python -m pip install --no-cache-dir --require-hashes --requirement requirements/uv.txt \
    && python -m venv /opt/venv

FROM builder AS builder-gpu
ARG VERSION=0.1.0
ENV SETUPTOOLS_SCM_PRETEND_VERSION_FOR_STREAM_GUARD=${VERSION}
RUN --mount=type=cache,target=/root/.cache \
    uv pip install --no-deps --require-hashes --requirement requirements/gpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY stream_guard/ stream_guard/
COPY deploy/image/prime_triton.py /src/
RUN --mount=type=cache,target=/root/.cache \
    uv pip install --no-deps . \
    && TRITON_CACHE_DIR=/opt/triton-cache /opt/venv/bin/python prime_triton.py

FROM builder AS builder-cpu
ARG VERSION=0.1.0
ENV SETUPTOOLS_SCM_PRETEND_VERSION_FOR_STREAM_GUARD=${VERSION}
# An index with torch's "+cpu" builds saves the CUDA libraries: --build-arg TORCH_INDEX_URL=https://...
ARG TORCH_INDEX_URL=
RUN --mount=type=cache,target=/root/.cache \
    if [ -n "${TORCH_INDEX_URL}" ]; then \
        uv pip install --no-deps --default-index "${TORCH_INDEX_URL}" "$(sed -n 's/^\(torch==[^ ;]*\).*/\1+cpu/p' requirements/torch.in)"; \
    else \
        uv pip install --no-deps --require-hashes --requirement requirements/torch.txt; \
    fi \
    && uv pip install --no-deps --require-hashes --requirement requirements/cpu-image.txt
COPY pyproject.toml README.md LICENSE ./
COPY stream_guard/ stream_guard/
RUN --mount=type=cache,target=/root/.cache \
    uv pip install --no-deps . \
    # The demo model comes with the package; this is a name for it that no Python version is part of.
    && mkdir -p /opt/models \
    && ln -s "$(/opt/venv/bin/python -c 'from stream_guard.cli.demo import MODEL; print(MODEL)')" /opt/models/demo

# What both images share: no compiler, no package manager's cache, no root.
FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Stream Guard" \
      org.opencontainers.image.description="Posts in from Kafka, verdicts out, each judged under its topic's written policy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 guard \
    && useradd --uid 10001 --gid guard --no-create-home --home-dir /var/lib/stream-guard guard \
    && install --directory --owner guard --group guard /var/lib/stream-guard /etc/stream-guard
# The root may be read-only: what is written goes under /var/lib/stream-guard and /tmp, each a volume then.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/stream-guard \
    HF_HOME=/var/lib/stream-guard/huggingface \
    XDG_CACHE_HOME=/var/lib/stream-guard/cache \
    TRITON_CACHE_DIR=/var/lib/stream-guard/triton \
    STREAM_GUARD_POLICIES__PATH=/etc/stream-guard/policies \
    STREAM_GUARD_TELEMETRY__LOG_FORMAT=json
COPY --chmod=0555 deploy/image/entrypoint.sh deploy/image/healthcheck.py /usr/local/bin/
COPY policies/ /etc/stream-guard/policies/
WORKDIR /var/lib/stream-guard
USER 10001:10001
EXPOSE 8080
# The loop's heartbeat; a broker that is away does not fail it. A model may take half an hour to load.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30m --start-interval=5s --retries=4 \
    CMD ["python", "/usr/local/bin/healthcheck.py"]
# The entry point ends in exec: signals reach the program.
ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
CMD ["run"]

FROM runtime AS cpu
COPY --from=builder-cpu /opt/venv /opt/venv
COPY --from=builder-cpu /opt/models /opt/models
ENV STREAM_GUARD_ENGINE__MODEL=/opt/models/demo

FROM runtime AS gpu
COPY --from=builder-gpu /opt/venv /opt/venv
COPY --from=builder-gpu /opt/triton-cache /opt/triton-cache
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
