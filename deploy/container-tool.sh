#!/bin/sh
# Prints the name of a tool that works here and builds images: docker, podman or buildah.
set -eu
for tool in docker podman buildah; do
    if command -v "$tool" >/dev/null && "$tool" info >/dev/null 2>&1; then
        echo "$tool"
        exit 0
    fi
done
echo "no working docker, podman or buildah (a docker client alone does not do: its daemon must run)" >&2
exit 1
