#!/bin/sh
# Puts what was compiled for Triton while the image was built where Triton looks, then becomes the program.
set -eu
if [ -d /opt/triton-cache ]; then
    mkdir -p "$TRITON_CACHE_DIR"
    cp -R /opt/triton-cache/. "$TRITON_CACHE_DIR"/
fi
exec stream-guard "$@"
