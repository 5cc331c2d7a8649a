#!/bin/sh
# Runs a command with the index, the pip settings and the CA certificates that the build was given as secrets, if any.
set -eu
if [ -s /run/secrets/ca ]; then
    export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca APT_CONFIG=/tmp/apt-ca.conf
    echo 'Acquire::https::CaInfo "/run/secrets/ca";' > "$APT_CONFIG"
fi
if [ -s /run/secrets/index ]; then
    UV_DEFAULT_INDEX=$(cat /run/secrets/index)
    PIP_INDEX_URL=$UV_DEFAULT_INDEX
    export UV_DEFAULT_INDEX PIP_INDEX_URL
fi
status=0
"$@" || status=$?
rm -f /tmp/apt-ca.conf
exit "$status"
