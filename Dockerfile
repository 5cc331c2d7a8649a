# Two targets: `gpu` (vLLM on CUDA) and `cpu` (vLLM on the CPU, with the demo model, for trying it out).
#
#     make image         stream-guard:cpu, with podman, buildah or docker
#     make image-gpu     stream-guard:gpu
#
# Or by hand, with any builder that knows `RUN --mount` (BuildKit, Buildah 1.28 and newer):
#
#     docker build --target cpu -t stream-guard:cpu .
#
# Secrets, all optional: `ca` (certificates to trust while building), `index` (URL of the Python index).
# Pin the base by its digest where you build for production: --build-arg PYTHON_IMAGE=python:3.12.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

# What both builders share: a compiler, and uv by its hash.
FROM ${PYTHON_IMAGE} AS builder
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY --chmod=0555 deploy/image/with_mirror.sh /usr/local/bin/with_mirror
# The base is pinned; a compiler of its time is all that is asked for, and it stays in this stage.
# hadolint ignore=DL3008
RUN --mount=type=secret,id=ca \
    with_mirror apt-get update \
    && with_mirror apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# PYTHONSAFEPATH: Python never imports from the folder it runs in, so no command sees the source instead of the package.
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv PYTHONSAFEPATH=1
WORKDIR /src
COPY requirements/ requirements/
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index \
    with_mirror python -m pip install --no-cache-dir --require-hashes --requirement requirements/uv.txt \
    && python -m venv --without-pip /opt/venv

FROM builder AS builder-gpu
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index \
    with_mirror uv pip install --no-deps --require-hashes --requirement requirements/gpu.txt
COPY deploy/image/prime_triton.py /src/
RUN TRITON_CACHE_DIR=/opt/triton-cache /opt/venv/bin/python prime_triton.py
COPY pyproject.toml README.md LICENSE ./
COPY stream_guard/ stream_guard/
ARG VERSION=0.1.0
# The bytecode is not checked against the sources' times: those may be rewritten, and the root may be read-only.
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index \
    SETUPTOOLS_SCM_PRETEND_VERSION_FOR_STREAM_GUARD="${VERSION}" \
    with_mirror uv pip install --no-deps --build-constraints requirements/cpu.txt . \
    && { /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true; }

FROM builder AS builder-cpu
# An index with torch's "+cpu" builds: --build-arg TORCH_INDEX_URL=https://... Without one, torch comes from PyPI, which
# has only a build for CUDA; its CUDA half is then replaced by stand-ins.
ARG TORCH_INDEX_URL=
COPY deploy/image/drop_cuda.py /src/
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index \
    if [ -n "${TORCH_INDEX_URL}" ]; then \
        with_mirror uv pip install --no-deps --default-index "${TORCH_INDEX_URL}" "$(sed -n 's/^\(torch==[^ ;]*\).*/\1+cpu/p' requirements/torch.in)"; \
    fi \
    && sed "${TORCH_INDEX_URL:+/^torch==/,/[^\\]$/d}" requirements/torch-image.txt > torch.txt \
    && with_mirror uv pip install --no-deps --require-hashes --requirement torch.txt \
    && with_mirror uv pip install --no-deps --require-hashes --requirement requirements/cpu-image.txt \
    && /opt/venv/bin/python drop_cuda.py "$(echo /opt/venv/lib/python3.*/site-packages/torch/lib)" \
    # Headers and programs for building extensions of torch: there is no compiler in the image.
    && rm -rf /opt/venv/lib/python3.*/site-packages/torch/include /opt/venv/lib/python3.*/site-packages/torch/bin/protoc* \
    # Intel's OpenMP for devices other than the CPU.
        /opt/venv/lib/libomptarget*
COPY pyproject.toml README.md LICENSE ./
COPY stream_guard/ stream_guard/
ARG VERSION=0.1.0
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index \
    SETUPTOOLS_SCM_PRETEND_VERSION_FOR_STREAM_GUARD="${VERSION}" \
    with_mirror uv pip install --no-deps --build-constraints requirements/cpu.txt . \
    && { /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true; } \
    # The demo model comes with the package; this is a name for it that no Python version is part of.
    && mkdir -p /opt/models \
    && ln -s "$(/opt/venv/bin/python -I -c 'from stream_guard.cli.demo import MODEL; print(MODEL)')" /opt/models/demo

# What both images share: no compiler, no package manager's cache, no root.
FROM ${PYTHON_IMAGE} AS runtime
# Read by useradd, which writes the date into /etc/shadow.
ARG SOURCE_DATE_EPOCH=
# Group 0 may write, too: OpenShift runs a container as a user of its own in that group. /etc/stream-guard is root's.
RUN groupadd --gid 10001 guard \
    && useradd --uid 10001 --gid guard --no-log-init --no-create-home --home-dir /var/lib/stream-guard guard \
    && install --directory --owner guard --group root --mode 0775 /var/lib/stream-guard \
    && install --directory /etc/stream-guard /usr/share/sbom
# The root may be read-only: what is written goes under /var/lib/stream-guard and /tmp, each a volume then.
# USER: a user id without a name has none in /etc/passwd, and Torch asks for it.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    ORT_DISABLE_TELEMETRY=1 \
    USER=guard \
    HOME=/var/lib/stream-guard \
    HF_HOME=/var/lib/stream-guard/huggingface \
    XDG_CACHE_HOME=/var/lib/stream-guard/cache \
    TRITON_CACHE_DIR=/var/lib/stream-guard/triton \
    STREAM_GUARD_POLICIES__PATH=/etc/stream-guard/policies \
    STREAM_GUARD_HTTP__HOST=0.0.0.0 \
    STREAM_GUARD_TELEMETRY__LOG_FORMAT=json
COPY --chmod=0555 deploy/image/entrypoint.sh deploy/image/healthcheck.py deploy/image/check_gpu.py /usr/local/bin/
COPY policies/ /etc/stream-guard/policies/
WORKDIR /var/lib/stream-guard
EXPOSE 8080
# The loop's heartbeat; a broker that is away does not fail it. A model may take half an hour to load.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30m --retries=4 \
    CMD ["python", "/usr/local/bin/healthcheck.py"]
# The entry point ends in exec: signals reach the program.
ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
CMD ["run"]

FROM runtime AS cpu
# vLLM's CPU build is linked against libnuma.
# hadolint ignore=DL3008
RUN --mount=type=secret,id=ca --mount=type=bind,source=deploy/image,target=/run/build \
    sh /run/build/with_mirror.sh apt-get update \
    && sh /run/build/with_mirror.sh apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log
COPY --from=builder-cpu /opt/venv /opt/venv
COPY --from=builder-cpu /opt/models /opt/models
ENV STREAM_GUARD_ENGINE__MODEL=/opt/models/demo
RUN --mount=type=bind,source=deploy/image,target=/run/build \
    python -I /run/build/sbom.py > /usr/share/sbom/stream-guard.cdx.json
USER 10001:10001
# Imports what a start imports. Nothing that this writes stays.
RUN --mount=type=bind,source=deploy/image,target=/run/build --mount=type=tmpfs,target=/var/lib/stream-guard \
    --mount=type=tmpfs,target=/tmp \
    python -I /run/build/check_image.py cpu
# Last, so that a new revision alone rebuilds nothing.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=
LABEL org.opencontainers.image.title="Stream Guard" \
      org.opencontainers.image.description="Posts in from Kafka, verdicts out, each judged under its topic's written policy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

FROM runtime AS gpu
COPY --from=builder-gpu /opt/venv /opt/venv
COPY --from=builder-gpu /opt/triton-cache /opt/triton-cache
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,source=deploy/image,target=/run/build \
    python -I /run/build/sbom.py > /usr/share/sbom/stream-guard.cdx.json
USER 10001:10001
RUN --mount=type=bind,source=deploy/image,target=/run/build --mount=type=tmpfs,target=/var/lib/stream-guard \
    --mount=type=tmpfs,target=/tmp \
    python -I /run/build/check_image.py gpu
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=
LABEL org.opencontainers.image.title="Stream Guard" \
      org.opencontainers.image.description="Posts in from Kafka, verdicts out, each judged under its topic's written policy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
