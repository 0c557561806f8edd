#!/bin/bash
# Install the programs that the tests run, only those that are missing.
# Nothing is skipped in silence: what cannot be had is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${WHOLEFS_ALLOW_SKIP:-}" = 1 ]; then
	echo "WHOLEFS_ALLOW_SKIP=1: taking the machine as it is"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "make test mounts filesystems: run it as root (or only what needs no mount: make test-unit)" >&2
	exit 1
fi
if [ ! -c /dev/fuse ]; then
	modprobe fuse 2> /dev/null || true
	[ -c /dev/fuse ] || { echo "make test needs /dev/fuse" >&2; exit 1; }
fi

updated=
apt() {
	if [ -z "$updated" ]; then
		apt-get update -q > /dev/null
		updated=1
	fi
	DEBIAN_FRONTEND=noninteractive apt-get -q "$@" < /dev/null
}

# program package
missing=()
while read -r program package; do
	command -v "$program" > /dev/null || missing+=("$package")
done <<'LIST'
fusermount3 fuse3
setfattr attr
setfacl acl
rsync rsync
mkfs.ext4 e2fsprogs
sqlite3 sqlite3
python3 python3
fallocate util-linux
git git
curl curl
tar tar
diff diffutils
LIST
if [ ${#missing[@]} -gt 0 ]; then
	echo "installing ${missing[*]}"
	apt install -y --no-install-recommends "${missing[@]}" > /dev/null
fi

# promtool comes in a package with a service that nobody asked for: take the
# one program out of it.
if ! command -v promtool > /dev/null && [ ! -x build/tools/promtool ]; then
	echo "unpacking promtool"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	chmod 755 "$work"
	(cd "$work" && apt download prometheus > /dev/null 2>&1 && dpkg-deb -x prometheus_*.deb tree)
	mkdir -p build/tools
	cp "$work/tree/usr/bin/promtool" build/tools/promtool
fi
