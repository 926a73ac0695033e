#!/bin/sh
# Makes a base image of Debian bookworm where no registry of images can be reached, but a Debian mirror can:
#
#     sudo deploy/base-image.sh
#     make image BASE=localhost/debian:bookworm-slim
#
# Wants root, debootstrap, and docker, podman or buildah. MIRROR names another mirror than debootstrap's own.
set -eu
name=${1:-localhost/debian:bookworm-slim}
tool=$(sh "$(dirname "$0")/container-tool.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

debootstrap --variant=minbase bookworm "$root" ${MIRROR:+"$MIRROR"}

# Like the slim images: no documents, manuals or translations, now or with later packages; licences stay.
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'EOF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
EOF
find "$root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/man/*
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*

case $tool in
    buildah)
        container=$(buildah from scratch)
        buildah add --quiet "$container" "$root" /
        buildah config --cmd /bin/bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
        buildah commit --rm "$container" "$name"
        ;;
    *) tar -C "$root" -c . | "$tool" import - "$name" ;;
esac
