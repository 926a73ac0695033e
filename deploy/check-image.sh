#!/bin/sh
# Runs the image ie-serving-py:latest with the documents' command line, asks it over gRPC and REST from outside, looks
# at its HEALTHCHECK and stops it:
#
#     sudo deploy/check-image.sh [PYTHON]     PYTHON: one that has the server's packages, for the client (.venv's)
#
# The container is made by hand, because buildah cannot make one and because it is then the same with every tool. It is
# what `docker run --read-only --tmpfs /run/ie_serving --network host` makes, or narrower: PID 1 is the server, the
# user has no privileges, nothing but the run directory can be written to (not even /tmp), /dev/shm has 64 MB.
set -eu

IMAGE=ie-serving-py:latest
MODEL=/opt/ml/model1
READY_S=60
STOP_MS=5000

# ----- inside the new namespaces: lay out the container's file systems, become PID 1 ------------------------------

if [ "${1:-}" = --inside ]; then
    root=$2 model=$3 user=$4 environment=$5
    mount --bind "$root" "$root"
    mount --bind "$model" "$root$MODEL"
    mount -o remount,bind,ro "$root$MODEL"
    mount -o remount,bind,ro "$root"
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    mknod -m 666 "$root/dev/null" c 1 3
    mknod -m 666 "$root/dev/zero" c 1 5
    mknod -m 666 "$root/dev/random" c 1 8
    mknod -m 666 "$root/dev/urandom" c 1 9
    ln -s /proc/self/fd "$root/dev/fd"
    mkdir "$root/dev/shm"
    mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/dev/shm"
    mount -o remount,ro "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/run/ie_serving"
    shift 5
    # The image's variables stand before the command.
    while IFS= read -r line; do set -- "$line" "$@"; done <"$environment"
    exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" \
        /usr/bin/env -i -C /ie-serving-py "$@"
fi

# ----- outside ----------------------------------------------------------------------------------------------------

python=${1:-.venv/bin/python}
cd "$(dirname "$0")/.."

skip() { echo "image-check: skipped: $*"; exit 0; }
fail() { echo "image-check: FAILED: $*" >&2; [ ! -f "$work/log" ] || cat "$work/log" >&2; exit 1; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

[ "$(id -u)" = 0 ] || skip "wants root"
tool=$(sh deploy/container-tool.sh 2>/dev/null) || skip "no working docker, podman or buildah"
if [ "$tool" = buildah ]; then inspect="buildah inspect --type image"; else inspect="$tool image inspect"; fi
work=$(mktemp -d)
container= server= pid=

clean_up() {
    [ -z "$server" ] || kill -KILL $pid "$server" 2>/dev/null || true
    if [ -n "$container" ]; then
        if [ "$tool" = buildah ]; then
            buildah umount "$container" >/dev/null
            buildah rm "$container" >/dev/null
        else
            "$tool" rm --volumes "$container" >/dev/null
        fi
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

$inspect "$IMAGE" >"$work/image.json" 2>/dev/null || skip "there is no image $IMAGE: make image"

# Environment (a line each) and the health check's command (a word each), in files; the user on standard output.
user=$("$python" - "$work" <<'END'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
image = json.loads((work / "image.json").read_text())
config = image["Docker"]["config"] if isinstance(image, dict) else image[0]["Config"]
health = config.get("Healthcheck") or image[0]["Healthcheck"]  # podman has it outside
kind, *command = health["Test"]
assert kind == "CMD", health
(work / "environment").write_text("".join(f"{line}\n" for line in config["Env"]))
(work / "health").write_text("".join(f"{word}\n" for word in command))
print(config["User"])
END
)
case $user in "" | 0* | root*) fail "the image's user is '$user'" ;; esac

if [ "$tool" = buildah ]; then
    container=$(buildah from --pull-never "$IMAGE")
    root=$(buildah mount "$container")
else
    container=$("$tool" create "$IMAGE")
    root=$work/root
    mkdir "$root"
    "$tool" export "$container" | tar -C "$root" -x
fi
mkdir -p "$root$MODEL"
echo "image-check: $IMAGE by $tool, $(du -sm "$root" | cut -f1) MB unpacked"

# A command in the running container, as `docker exec` does it.
in_container() {
    while IFS= read -r line; do set -- "$line" "$@"; done <"$work/environment"
    nsenter --target "$pid" --mount --pid --ipc --root --wd --setuid "${as%:*}" --setgid "${as#*:}" \
        /usr/bin/env -i "$@"
}

healthy() {
    set --
    while IFS= read -r word; do set -- "$@" "$word"; done <"$work/health"
    in_container "$@" >"$work/health.log" 2>&1
}

check() {
    as=$1
    started=$(now_ms)
    unshare --mount --pid --fork --ipc --uts --kill-child sh deploy/check-image.sh \
        --inside "$root" "$PWD/examples/digits/model" "$as" "$work/environment" \
        /ie-serving-py/start_server.sh ie_serving model --model_path "$MODEL" --model_name my_model \
        --port 9001 --rest_port 8001 >"$work/log" 2>&1 &
    server=$!
    until pid=$(pgrep --parent "$server") && [ "$(readlink "/proc/$pid/root")" = "$root" ]; do
        kill -0 "$server" 2>/dev/null || fail "the container did not start"
        sleep 0.1
    done
    [ "$(awk '/^NSpid/ { print $3 }' "/proc/$pid/status")" = 1 ] || fail "the server is not PID 1"
    until healthy; do
        kill -0 "$server" 2>/dev/null || fail "the server has ended"
        [ $(($(now_ms) - started)) -lt $((READY_S * 1000)) ] || fail "not healthy: $(cat "$work/health.log")"
        sleep 0.2
    done
    ready=$(($(now_ms) - started))

    answer=$("$python" -m examples.digits.client --model_name my_model --port 9001 --rest_port 8001 \
        examples/digits/images/3.png) || fail "a request failed"
    case $answer in *"REST says it is a 3 "*"gRPC says it is a 3 "*) ;; *) fail "answered: $answer" ;; esac
    in_container touch /tmp/x 2>/dev/null && fail "/tmp can be written to"
    [ -z "$(in_container ls -A /dev/shm)" ] || fail "/dev/shm is in use"
    ! grep -iE 'traceback|read-only|error' "$work/log" || fail "the log has errors"
    zombies=$(in_container sh -c 'grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null' || true)
    [ -z "$zombies" ] || fail "processes that ended were not reaped: $zombies"

    stopped=$(now_ms)
    kill -TERM "$pid"
    code=0
    wait "$server" || code=$?
    server= pid=
    took=$(($(now_ms) - stopped))
    [ "$code" = 0 ] || fail "exit code $code after SIGTERM"
    [ "$took" -lt "$STOP_MS" ] || fail "stopped after $took ms"
    echo "image-check: user $as: healthy after $ready ms; $answer; SIGTERM: exit code 0 after $took ms"
}

check "$user"
# Any other user does as well (docker run --user), one without a name too.
check 12345:0
echo "image-check: passed"
