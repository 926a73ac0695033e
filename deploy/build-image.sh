#!/bin/sh
# Builds the image ie-serving-py:latest from the Dockerfile. Arguments go to the build tool; BASE names another base.
set -eu
cd "$(dirname "$0")/.."
tool=$(sh deploy/container-tool.sh)
if [ -n "${BASE:-}" ]; then
    set -- --build-arg "BASE=$BASE" "$@"
fi
# HEALTHCHECK is no part of the OCI format, which podman and buildah write unless told.
case $tool in
    docker) exec docker build --tag ie-serving-py:latest "$@" . ;;
    *) exec "$tool" build --format docker --tag ie-serving-py:latest "$@" . ;;
esac
