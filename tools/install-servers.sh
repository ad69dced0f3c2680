#!/bin/sh
# Install PostgreSQL and RabbitMQ for the tests, which start private servers from them, and
# Prometheus for its promtool, which checks the alert rules.
# Nothing is started or enabled; what is already installed is left alone.
set -eu

policy=/usr/sbin/policy-rc.d

missing=
if ! command -v pg_config >/dev/null 2>&1 || [ ! -x "$(pg_config --bindir)/postgres" ]; then
    set -- /usr/lib/postgresql/*/bin/postgres
    [ -x "$1" ] || command -v postgres >/dev/null 2>&1 || missing="postgresql"
fi
if ! command -v rabbitmq-server >/dev/null 2>&1 && [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    missing="${missing:+$missing }rabbitmq-server"
fi
command -v promtool >/dev/null 2>&1 || missing="${missing:+$missing }prometheus"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing: $missing; as root, run: apt-get install --no-install-recommends $missing" >&2
    exit 1
fi

# Debian's packages start their services unless this file forbids it.
restore() {
    rm -f "$policy"
    [ ! -e "$policy.flashsale" ] || mv "$policy.flashsale" "$policy"
}
trap restore EXIT
trap 'exit 1' HUP INT TERM
[ ! -e "$policy" ] || mv "$policy" "$policy.flashsale"
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

apt-get update -qq
# Word splitting is wanted: one word is one package.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
