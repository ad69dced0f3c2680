#!/bin/sh
# Write into docker/Dockerfile which image the tag of its base is now. Needs Docker with buildx, and
# the registry. Build, test and commit afterwards: a newer base is a change like any other.
set -eu
cd "$(dirname "$0")/.."

file=docker/Dockerfile
image=$(sed -n 's/^ARG PYTHON_IMAGE=//p' "$file")
digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
if ! echo "$digest" | grep -Eqx 'sha256:[0-9a-f]{64}'; then
    echo "pin: the registry's answer for $image is no digest: $digest" >&2
    exit 1
fi
sed "s/^ARG PYTHON_DIGEST=.*/ARG PYTHON_DIGEST=$digest/" "$file" >"$file.new"
mv "$file.new" "$file"
echo "$image is $digest"
