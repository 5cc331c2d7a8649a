#!/bin/sh
# Checks for GPUs, and puts the kernels that were compiled while the image was built where Triton looks; both in the
# GPU image alone. Then becomes the program.
set -eu
if [ -d /opt/triton-cache ]; then
    if [ "${1:-}" = run ] && [ "${STREAM_GUARD_ENGINE__KIND:-vllm}" = vllm ]; then
        python -I /usr/local/bin/check_gpu.py "${STREAM_GUARD_ENGINE__TENSOR_PARALLEL_SIZE:-1}"
    fi
    mkdir -p "$TRITON_CACHE_DIR"
    cp -R /opt/triton-cache/. "$TRITON_CACHE_DIR"/
fi
exec stream-guard "$@"
