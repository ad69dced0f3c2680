#!/bin/sh
# Install flashsale, and nothing else, into a folder of its own: docker/install.sh /opt/flashsale
#
# The image's build runs this, and a test runs it into an empty folder (tests/deployment).
# All comes from the locks in requirements/, as wheels with hashes: nothing is compiled but
# flashsale's own wheel, which is Python, and no pip is left in the folder.
set -eu

folder=${1:?usage: docker/install.sh FOLDER}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

pip() {
    "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"
}

"$python" -m venv "$work/venv"
pip install --require-hashes --only-binary :all: --requirement requirements/build.txt

# A copy, since a build leaves its own files among the sources, and takes in what an older one left.
mkdir "$work/sources"
cp -R flashsale migrations setup.cfg setup.py pyproject.toml README.md LICENSE "$work/sources"
pip wheel --no-deps --no-index --no-build-isolation --wheel-dir "$work" "$work/sources"

"$python" -m venv --without-pip "$folder"
pip --python "$folder/bin/python" install \
    --require-hashes --only-binary :all: --requirement requirements/worker.txt
pip --python "$folder/bin/python" install --no-deps --no-index "$work"/flashsale-*.whl
