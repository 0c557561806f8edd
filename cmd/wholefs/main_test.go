package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be wholefs: the daemon is always another
// process, as a process that uses its own mount can wait for itself.
func TestMain(m *testing.M) {
	if os.Getenv("WHOLEFS_BE_MAIN") == "1" {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		code := run(ctx, os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// call runs the program in this process.
func call(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code = run(ctx, append([]string{"wholefs"}, args...), env, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func tree(t *testing.T, dirs ...string) string {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	for _, d := range dirs {
		require.NoError(t, os.MkdirAll(filepath.Join(top, d), 0o755))
	}
	return top
}

// oneErrorLine checks the form of every error: one line, with our name.
func oneErrorLine(t *testing.T, stderr string) {
	t.Helper()
	require.True(t, strings.HasPrefix(stderr, "wholefs: "), stderr)
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args string
		says string
	}{
		{"", "no command"},
		{"nosuch", `unknown command "nosuch"`},
		{"mount", "usage: wholefs mount STORE MOUNTPOINT"},
		{"mount a", "missing argument"},
		{"mount a b c", "too many arguments: c"},
		{"mount --nosuch a b", "unknown flag: --nosuch"},
		{"mount --part-size=17 a b", "multiple of 4K"},
		{"mount --part-size=x a b", "not a size"},
		{"mount --part-size=6G a b", "--part-size=6G"},
		{"mount --buffer-size=1M a b", "at least 8M"},
		{"mount --durability=some a b", "process, close, part"},
		{"mount --on-kill=perhaps a b", "hold, publish, abort"},
		{"mount --hold-ttl=-1s a b", "not a duration"},
		{"mount --max-sessions=0 a b", "at least 1"},
		{"mount --flush-timeout=0s a b", "--flush-timeout=0"},
		{"mount --log-level=loud a b", "debug, info, warn, error"},
		{"mount --metrics-listen=9570 a b", "HOST:PORT"},
		{"mount --metrics-listen=0.0.0.0:9570 a b", metricsTokenEnv},
		{"mount --pprof=0.0.0.0:6060 a b", "loopback only"},
		{"mount s3://bucket/prefix b", "not in this version yet"},
		{"mount http://host:80/ b", "not in this version yet"},
		{"umount", "usage: wholefs umount MOUNTPOINT"},
		{"umount --timeout=soon a", "not a duration"},
		{"status a b", "too many arguments: b"},
		{"session", "session needs a command"},
		{"session nosuch", `unknown command "session nosuch"`},
		{"session show", "missing argument"},
		{"session publish a b c", "too many arguments: c"},
		{"version now", "too many arguments: now"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, out, errs := call(t, nil, strings.Fields(c.args)...)
			require.Equal(t, exitUsage, code, errs)
			require.Empty(t, out)
			require.Contains(t, errs, c.says)
			oneErrorLine(t, errs)
		})
	}
}

func TestNotMounted(t *testing.T) {
	dir := tree(t, "plain")
	for _, args := range [][]string{
		{"umount", dir + "/plain"}, {"umount", dir + "/none"}, {"status", dir + "/plain"}, {"status", dir + "/none"},
		{"session", "ls", dir + "/plain"}, {"session", "publish", dir + "/plain", "x"},
	} {
		code, _, errs := call(t, nil, args...)
		require.Equal(t, exitNotMounted, code, "%v: %s", args, errs)
		oneErrorLine(t, errs)
	}
}

func TestWhatCannotBeMounted(t *testing.T) {
	dir := tree(t, "store/in", "empty", "outer/store", "full/of", "state")
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o644))
	require.NoError(t, os.Symlink("store/in", dir+"/link"))
	for _, c := range []struct {
		name, args string
		code       int
		says       string
	}{
		{"missing mountpoint", "store none", exitFailed, "none does not exist"},
		{"missing store", "none empty", exitFailed, "none does not exist"},
		{"file as mountpoint", "store file", exitFailed, "not a directory"},
		{"file as store", "file empty", exitFailed, "not a directory"},
		{"not empty", "store full", exitFailed, "not empty"},
		{"the store itself", "store store", exitUsage, "both the store and the mountpoint"},
		{"inside the store", "store store/in", exitUsage, "inside the store"},
		{"inside by a symlink", "store link", exitUsage, "inside the store"},
		{"around the store", "outer/store outer", exitUsage, "inside the mountpoint"},
		{"state around", "--state-dir=. store empty", exitUsage, "inside the state directory"},
		{"state inside", "--state-dir=empty/state store empty", exitUsage, "inside the mountpoint"},
		{"state among the files", "--state-dir=store/state store empty", exitUsage, "would be seen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(dir)
			code, _, errs := call(t, nil, append([]string{"mount", "-f"}, strings.Fields(c.args)...)...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
			oneErrorLine(t, errs)
			require.NoDirExists(t, filepath.Join(dir, "store", stateDirName), "nothing is made before the checks")
		})
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := call(t, nil, "version")
	require.Equal(t, exitDone, code)
	require.True(t, strings.HasPrefix(out, "wholefs "), out)
	code, out, _ = call(t, nil, "version", "--json")
	require.Equal(t, exitDone, code)
	require.Contains(t, out, `"version": `)
}

func TestHelpAndCompletion(t *testing.T) {
	for _, args := range []string{"--help", "mount --help", "session --help", "completion bash", "completion fish"} {
		code, out, errs := call(t, nil, strings.Fields(args)...)
		require.Equal(t, exitDone, code, errs)
		require.Empty(t, errs)
		require.Contains(t, out, "wholefs")
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(text)
}
