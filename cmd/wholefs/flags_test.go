package main

import (
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/session"
)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		back string
	}{
		{"0", 0, "0"}, {"1", 1, "1"}, {"4096", 4096, "4K"}, {"4K", 4096, "4K"}, {"4k", 4096, "4K"}, {"16M", 16 << 20, "16M"},
		{"16MB", 16 << 20, "16M"}, {"16MiB", 16 << 20, "16M"}, {"1G", 1 << 30, "1G"}, {"2T", 2 << 40, "2T"},
		{"5000", 5000, "5000"}, {"7E", 7 << 60, "7E"}, {"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	} {
		var s size
		require.NoError(t, s.Set(c.text), c.text)
		require.EqualValues(t, c.want, s, c.text)
		require.Equal(t, c.back, s.String())
	}
	for _, text := range []string{"", "K", "-1", "+1", "1.5M", "8E", "9223372036854775808", "1 M", "0x10", "MM", "1KK", "B"} {
		var s size
		require.Error(t, s.Set(text), text)
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		back string
	}{
		{"0", 0, "0s"}, {"90s", 90 * time.Second, "1m30s"}, {"10m", 10 * time.Minute, "10m"}, {"1h", time.Hour, "1h"}, {"168h", 168 * time.Hour, "7d"},
		{"7d", 168 * time.Hour, "7d"}, {"1d12h", 36 * time.Hour, "36h"}, {"250ms", 250 * time.Millisecond, "250ms"}, {"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"},
	} {
		var d duration
		require.NoError(t, d.Set(c.text), c.text)
		require.EqualValues(t, c.want, d, c.text)
		require.Equal(t, c.back, d.String())
	}
	for _, text := range []string{"", "d", "-1d", "1d-1h", "-5s", "soon", "5", "1.5d", "99999999d", "7dd", "40000d"} {
		var d duration
		require.Error(t, d.Set(text), text)
	}
}

// decode parses flags the way the program does, without running the verb.
func decode(t *testing.T, env []string, args ...string) (*mountOptions, error) {
	t.Helper()
	o := newMountOptions()
	cmd := &cobra.Command{Use: "mount"}
	o.flags(cmd.Flags())
	require.NoError(t, cmd.ParseFlags(args))
	return o, applyEnv(cmd, newEnvironment(env))
}

func TestFlagBeatsEnvironmentBeatsDefault(t *testing.T) {
	o, err := decode(t, nil)
	require.NoError(t, err)
	require.EqualValues(t, 16<<20, o.sessions.partSize)
	require.EqualValues(t, session.DefaultHoldTTL, o.sessions.holdTTL)
	require.Equal(t, "127.0.0.1:9570", o.watch.metrics)

	env := []string{"WHOLEFS_PART_SIZE=32M", "WHOLEFS_HOLD_TTL=2d", "WHOLEFS_METRICS_LISTEN=off", "WHOLEFS_ALLOW_OTHER=true",
		"WHOLEFS_FSNAME=", "WHOLEFS_DURABILITY=close", "PART_SIZE=1K", "WHOLEFS_HELP=true", "malformed"}
	o, err = decode(t, env, "--part-size=64M")
	require.NoError(t, err)
	require.EqualValues(t, 64<<20, o.sessions.partSize, "the flag wins")
	require.EqualValues(t, 48*time.Hour, o.sessions.holdTTL, "the environment wins over the default")
	require.Equal(t, off, o.watch.metrics)
	require.True(t, o.allowOther)
	require.Equal(t, "close", o.sessions.durability.word)
	require.Empty(t, o.fsName, "an empty variable is none")

	// Set to its default on the command line, a flag still wins.
	o, err = decode(t, env, "--part-size=16M")
	require.NoError(t, err)
	require.EqualValues(t, 16<<20, o.sessions.partSize)
}

func TestBadEnvironment(t *testing.T) {
	for _, entry := range []string{"WHOLEFS_PART_SIZE=huge", "WHOLEFS_MAX_SESSIONS=many", "WHOLEFS_ALLOW_OTHER=perhaps", "WHOLEFS_ON_KILL=x"} {
		code, _, errs := call(t, []string{entry}, "mount", "a", "b")
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, entry+" in the environment")
		oneErrorLine(t, errs)
	}
}

// Every flag of every verb has a variable; two flags never share one.
func TestEveryFlagHasAVariable(t *testing.T) {
	require.Equal(t, "WHOLEFS_PART_SIZE", envName("part-size"))
	code, _, errs := call(t, []string{"WHOLEFS_JSON=1"}, "version")
	require.Equal(t, exitDone, code, errs)
	code, out, _ := call(t, []string{"WHOLEFS_JSON=1"}, "version")
	require.Equal(t, exitDone, code)
	require.Contains(t, out, `"go": `)
}

func TestHelperArgs(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"plain", []string{"/s", "/m"}, []string{"mount", "--", "/s", "/m"}},
		{"options", []string{"/s", "/m", "-o", "part_size=32M,allow_other,hold_ttl=2d"},
			[]string{"mount", "--part-size=32M", "--allow-other", "--hold-ttl=2d", "--", "/s", "/m"}},
		{"what fstab has", []string{"/s", "/m", "-o", "rw,_netdev,nofail,noauto,defaults,x-systemd.automount,X-mount.mkdir=0755,nosuid,nodev,user"},
			[]string{"mount", "--", "/s", "/m"}},
		{"letters of mount(8)", []string{"/s", "/m", "-snv", "-o", "durability=close", "-t", "wholefs", "-N", "/proc/1/ns/mnt"},
			[]string{"mount", "--durability=close", "--", "/s", "/m"}},
		{"value attached", []string{"-opart_size=8M", "/s", "/m"}, []string{"mount", "--part-size=8M", "--", "/s", "/m"}},
		{"bundled", []string{"-vo", "part_size=8M", "/s", "/m"}, []string{"mount", "--part-size=8M", "--", "/s", "/m"}},
		{"twice", []string{"/s", "/m", "-o", "rw", "-o", "on_kill=abort"}, []string{"mount", "--on-kill=abort", "--", "/s", "/m"}},
		{"value with =", []string{"/s", "/m", "-o", "fsname=a=b"}, []string{"mount", "--fsname=a=b", "--", "/s", "/m"}},
		{"fake", []string{"/s", "/m", "-f", "-o", "rw"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := helperArgs(c.args)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	for _, args := range [][]string{{"/s", "/m", "-o"}, {"/s", "/m", "-z"}, {"/s", "/m", "-o", "ro"}, {"/s", "/m", "-o", "rw,noexec"}} {
		_, err := helperArgs(args)
		require.Equal(t, exitUsage, exitCode(err), "%v", args)
	}
}

func TestHelperIsChosenByName(t *testing.T) {
	var out, errs nothing
	code := run(t.Context(), []string{"/sbin/mount.wholefs", "/s", "/m", "-o", "nosuchoption"}, nil, nil, &out, &errs)
	require.Equal(t, exitUsage, code)
	require.Contains(t, string(errs), "--nosuchoption")
}

type nothing []byte

func (n *nothing) Write(p []byte) (int, error) { *n = append(*n, p...); return len(p), nil }
