#!/bin/bash
# make demo: mount a directory without any configuration, copy a large file
# into it, and show that it appears whole or not at all.
set -euo pipefail

wholefs=${WHOLEFS_BIN:-bin/wholefs}
size=${DEMO_MIB:-1024}
work=$(mktemp -d "${WHOLEFS_TEST_DIR:-${TMPDIR:-/tmp}}/wholefs-demo-XXXXXX")
store=$work/store mnt=$work/mnt
cp_pid=

cleanup() {
	status=$?
	trap - EXIT INT TERM
	[ -z "$cp_pid" ] || kill -KILL "$cp_pid" 2> /dev/null || true
	if grep -q " $mnt fuse" /proc/self/mounts; then
		timeout -s KILL 20 "$wholefs" umount "$mnt" > /dev/null 2>&1 || umount -l "$mnt" || true
	fi
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; timeout -s KILL 60 "$@"; }

[ "$(id -u)" = 0 ] || { echo "make demo mounts a filesystem: run it as root" >&2; exit 1; }
[ -c /dev/fuse ] || { echo "make demo needs /dev/fuse" >&2; exit 1; }
mkdir "$store" "$mnt"

say "A file of $size MiB to copy"
head -c "$((size << 20))" /dev/urandom > "$work/source"
sha256sum "$work/source"

say "Mount a directory, no configuration"
run "$wholefs" mount "$store" "$mnt"
run "$wholefs" status "$mnt"

say "Copy into the mount, and look at both sides while it runs"
printf '$ cp %s %s\n' "$work/source" "$mnt/model.bin"
cp "$work/source" "$mnt/model.bin" &
cp_pid=$!
seen=0
while kill -0 "$cp_pid" 2> /dev/null; do
	listing=$(ls "$store")
	inside=$(stat -c %s "$mnt/model.bin" 2> /dev/null || echo 0)
	# Only a copy that still runs after the look tells anything.
	if kill -0 "$cp_pid" 2> /dev/null && [ "$inside" -lt "$((size << 20))" ]; then
		printf '  in the mount: %12d bytes    in the directory: %s\n' "$inside" "${listing:-nothing}"
		seen=$((seen + 1))
		[ -z "$listing" ] || { echo "the directory shows an unfinished file" >&2; exit 1; }
	fi
	sleep 0.2
done
wait "$cp_pid"
cp_pid=
[ "$seen" -gt 0 ] || echo "  (the copy was done before the first look: try DEMO_MIB=4096)"

say "cp returned: the directory has the whole file"
run ls -l "$store"
run sha256sum "$store/model.bin"
cmp "$work/source" "$store/model.bin"

say "A copy that is killed publishes nothing"
printf '$ cat /dev/zero > %s  # killed after half a second\n' "$mnt/killed.bin"
cat /dev/zero > "$mnt/killed.bin" &
cp_pid=$!
sleep 0.5
kill -KILL "$cp_pid"
wait "$cp_pid" 2> /dev/null || true
cp_pid=
run ls "$store"
run "$wholefs" session ls "$mnt"
run "$wholefs" session abort "$mnt" killed.bin

say "What Prometheus sees"
metrics=$("$wholefs" status --json "$mnt" | sed -n 's/.*"metrics": *"\([^"]*\)".*/\1/p' | head -n 1)
metrics=${metrics%/metrics}/metrics
printf '$ curl -s %s\n' "$metrics"
curl -s --max-time 10 "$metrics" | grep -E '^wholefs_(written_bytes_total|sessions(_total)?[{ ]|parts_completed_total|publish_duration_seconds_(count|sum)|flush_decisions_total|buffer_bytes|staging_bytes)'

say "Unmount"
run "$wholefs" umount "$mnt"
run ls -l "$store"
say "Done: the file was never seen in parts."
