#!/bin/sh
# Ask the Python Packaging Advisory Database for known holes in what requirements/ locks.
# A package that could not be asked about is a failure: silence must not pass for safety.
set -u
cd "$(dirname "$0")/.." || exit 1

report=$(mktemp)
trap 'rm -f "$report"' EXIT
if pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
    -r requirements/worker.txt -r requirements/test.txt -r requirements/build.txt >"$report" 2>&1
then
    cat "$report"
    exit 0
fi
if grep -q -e 'could not be audited' -e 'ConnectionError' -e 'Max retries' -e 'ServiceError' "$report"
then
    tail -n 1 "$report" >&2
    echo "audit: the advisory service gave no answer, so nothing is known either way;" \
        "run this where it can be reached (a mirror of the package index does not offer it)" >&2
    exit 1
fi
cat "$report" >&2
echo "audit: renew the lock by 'make lock', or raise the version in setup.cfg" >&2
exit 1
