#!/bin/sh
# Make random passwords for the stack: docker/make-secrets.sh FOLDER
# Then: SECRETS_FOLDER=FOLDER docker compose -f docker/compose.yaml up
# A password that is there already is left alone, since its server has it, too.
set -eu

folder=${1:?usage: docker/make-secrets.sh FOLDER}
# Compose mounts each file as it is, and each container reads it as a user of its own. So all may
# read the files, and nobody but the owner comes into their folder.
umask 077
mkdir -p "$folder"
for name in postgres_password rabbitmq_password grafana_password; do
    if [ ! -e "$folder/$name" ]; then
        head -c 24 /dev/urandom | base64 | tr '+/' '-_' >"$folder/$name"
        chmod 0444 "$folder/$name"
        echo "made $folder/$name"
    fi
done
