#!/usr/bin/env bash
# Builds the image, runs it confined as docker-compose.yml does, and checks what matters: it gets healthy, computes without
# compiling, drains on SIGTERM. For a Debian machine without a Docker engine or a registry: needs root, and installs
# debootstrap, buildah and runc. The base image is a stand-in made by debootstrap; the real python:3.11-slim-bookworm
# stays untested here.
set -euo pipefail
cd "$(dirname "$0")/.."
BASE=docker.io/library/python:3.11-slim-bookworm
WORK=$(mktemp -d /tmp/actserve-image-XXXXXX)
PID=
cleanup() {
    [ -z "$PID" ] || kill "$PID" 2>/dev/null || true
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf "$WORK"
}
trap cleanup EXIT
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

apt-get update -qq
apt-get install -qq -y --no-install-recommends debootstrap buildah >/dev/null

if ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$WORK/root" >"$WORK/debootstrap.log"
    ln -sf python3 "$WORK/root/usr/bin/python"
    container=$(buildah from scratch)
    buildah add -q "$container" "$WORK/root" / >/dev/null
    buildah commit -q "$container" "$BASE" >/dev/null
    rm -rf "$WORK/root"
fi

# pip finds its index, and whom to trust, as it does outside.
pip_options=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
for file in /etc/pip.conf "${HOME}/.config/pip/pip.conf" "${HOME}/.pip/pip.conf"; do
    [ ! -f "$file" ] || pip_options+=(--volume "$file:/etc/pip.conf:ro")
done
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_CERT SSL_CERT_FILE; do
    [ -z "${!name:-}" ] || pip_options+=(--env "$name=${!name}")
done
buildah bud --pull-never --network host "${pip_options[@]}" --target server --tag actserve-server .

container=$(buildah from --pull-never actserve-server)
root=$(buildah mount "$container")
echo "image: $(du -sm "$root" | cut -f1) MB"

# Confined: own mounts, the root file system read-only but for /tmp, another user, no capability.
cat >"$WORK/confined" <<'INNER'
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot --userspec=10001:10001 "$root" /usr/bin/env -i PATH=/opt/actserve/venv/bin:/usr/bin:/bin HOME=/tmp \
    ACTSERVE_ADDRESS=127.0.0.1:50051 ACTSERVE_CACHE_DIR=/opt/actserve/kernels ACTSERVE_LOG_FORMAT=json "$@"
INNER
confined() { unshare --mount sh "$WORK/confined" "$root" "$@"; }

begin=$(date +%s.%N)
unshare --mount sh "$WORK/confined" "$root" actserve serve 2>"$WORK/server.log" &
PID=$!
until confined actserve health --server 127.0.0.1:50051 >/dev/null; do
    kill -0 "$PID" || { cat "$WORK/server.log"; exit 1; }
done
echo "healthy after $(echo "$(date +%s.%N) - $begin" | bc 2>/dev/null || echo '?') s"
confined python -c '
import os, time, numpy as np
from actserve_client import Client
assert os.getuid() == 10001
try:
    open("/opt/actserve/written", "w")
    raise SystemExit("the root file system can be written to")
except OSError:
    pass
with Client("127.0.0.1:50051") as client:
    client.forward("identity", np.ones(3))  # the first kernel of all also starts Numba, which takes a second
    for name in ("gelu", "softmax", "softplus"):
        begin = time.perf_counter()
        client.forward(name, np.linspace(-3, 3, 1000))
        seconds = time.perf_counter() - begin
        print(f"first {name}: {seconds * 1000:.0f} ms")
        assert seconds < 0.3, "a kernel was compiled although the image carries it"
'
kill -TERM "$PID"
wait "$PID"
PID=
grep -q '"stopped"' "$WORK/server.log"
echo "drained and stopped with status 0"
