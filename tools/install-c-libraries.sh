#!/bin/sh
# Install what the benchmark's yardstick, a program in C, is built with. See benchmarks/.
set -eu

missing=
for package in libcjson libpq librabbitmq; do
    pkg-config --exists "$package" 2>/dev/null || missing="$missing $package-dev"
done
for program in cc:gcc make:make pkg-config:pkg-config; do
    command -v "${program%:*}" >/dev/null 2>&1 || missing="$missing ${program#*:}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing; as root, run: apt-get install --no-install-recommends$missing libc6-dev" >&2
    exit 1
fi
apt-get update -qq
# Word splitting is wanted: one word is one package.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing libc6-dev
