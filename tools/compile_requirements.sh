#!/usr/bin/env bash
# Rewrites requirements/*.txt: exact versions with hashes, and no index named.
#
# cpu.txt + torch.txt is what `make` installs; cpu-image.txt + torch-image.txt is the part of it that the image
# needs; gpu.txt is for a machine with a GPU. torch has a file
# of its own so that it can be taken from elsewhere (TORCH_INDEX_URL, see README.md). Both come of
# one resolution, so that they agree.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-.venv/bin/uv}
upgrade=(${UPGRADE:+--upgrade})
common=(--universal --python-version 3.11 --no-annotate --quiet)
locked=("${common[@]}" --generate-hashes --no-emit-index-url --custom-compile-command "make requirements")
extras=(--extra cpu --extra registry --extra broker --extra dev --extra bench --extra evaluation --extra ray --extra console)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# One resolution with torch in it. What is pinned already stays, unless UPGRADE is set.
sed "s/^torch ;.*/$(grep '^torch==' requirements/torch.in)/" requirements/cpu.overrides.in >"$scratch/overrides.in"
if [ -z "${UPGRADE:-}" ] && [ -f requirements/cpu.txt ]; then
    cat requirements/cpu.txt requirements/torch.txt >"$scratch/all.txt"
fi
"$uv" pip compile pyproject.toml "${extras[@]}" --override "$scratch/overrides.in" \
    "${common[@]}" --no-header -o "$scratch/all.txt" "${upgrade[@]}"

"$uv" pip compile requirements/torch.in "${locked[@]}" -c "$scratch/all.txt" -o requirements/torch.txt --upgrade
"$uv" pip compile pyproject.toml "${extras[@]}" --override requirements/cpu.overrides.in \
    "${locked[@]}" -c "$scratch/all.txt" -o requirements/cpu.txt --upgrade
"$uv" pip compile pyproject.toml --extra cpu --extra registry --extra console --override requirements/cpu.overrides.in \
    --override requirements/cpu-image.overrides.in "${locked[@]}" -c "$scratch/all.txt" -o requirements/cpu-image.txt --upgrade
"$uv" pip compile requirements/torch.in --override requirements/torch-image.overrides.in \
    "${locked[@]}" -c "$scratch/all.txt" -o requirements/torch-image.txt --upgrade
"$uv" pip compile pyproject.toml --extra gpu --extra registry --extra console "${locked[@]}" -o requirements/gpu.txt "${upgrade[@]}"
"$uv" pip compile requirements/uv.in "${locked[@]}" -o requirements/uv.txt "${upgrade[@]}"
