// Command bench measures wholefs as its users feel it: whole commands on a
// real mount, each paired with the same command on the plain directory's
// filesystem right before or after it, in a drawn order.
//
//	bench [-reps 5] [-size 2147483648] [-dir DIR] [-docs FILE] [-check]
//
// Before each command: sync; after it, what it made is removed. The first pair
// of each case is not counted: in a virtual machine free memory may have been
// returned to the host, and whoever touches it first pays for that several times
// what writing costs. Afterwards each command fills the pages that the one before
// has freed, as on a machine that keeps its memory. Printed are the
// medians of both, the median of the paired ratios (plain divided by mount: 1
// is as fast as plain, more is faster), the daemon's peak memory and its
// processor time. With -check the command fails below the bar: cp of a large
// file at 0.75 of plain, daemon memory under 200 MiB.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/test/harness"
)

const (
	barRatio  = 0.75
	barMemory = 200 << 20
)

func main() {
	b := bench{}
	flag.IntVar(&b.reps, "reps", 5, "repetitions of each pair")
	flag.Int64Var(&b.size, "size", 2<<30, "size of the large file in bytes")
	flag.StringVar(&b.dir, "dir", "", "directory to measure in, on a real filesystem (default: the tests')")
	flag.StringVar(&b.docs, "docs", "", "also write the table to this file")
	flag.StringVar(&b.only, "only", "", "measure only the cases whose name contains this")
	flags := flag.String("flags", "", "flags added to wholefs mount, space-separated")
	check := flag.Bool("check", false, "fail below the bar")
	flag.Parse()
	b.flags = strings.Fields(*flags)
	rows, err := b.run()
	harness.Cleanup()
	if err == nil && b.docs != "" {
		err = os.WriteFile(b.docs, []byte(document(b, rows)), 0o644)
	}
	if err == nil && *check {
		err = bar(rows)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	reps  int
	size  int64
	dir   string
	docs  string
	only  string
	flags []string

	source, small string
	plain         string
	m             *harness.Mnt
}

// testCase is one command; "$SRC", "$SMALL" and "$DST" are set for it.
type testCase struct {
	name    string
	bytes   func(b *bench) int64
	prepare string // not timed
	script  string
}

var cases = []testCase{
	{"cp, one large file", largeBytes, "", `cp "$SRC" "$DST/f"`},
	{"dd bs=1M", largeBytes, "", `dd if="$SRC" of="$DST/f" bs=1M status=none`},
	{"dd bs=10k, a quarter of it", quarterBytes, "", `dd if="$SRC" of="$DST/f" bs=10k count=$((QUARTER / 10240)) status=none`},
	{"cp -r, 2,000 files of 4 KiB", func(*bench) int64 { return 2000 * 4096 }, "", `cp -r "$SMALL" "$DST/d"`},
	{"read back, cold", largeBytes, `cp "$SRC" "$DST/f"; sync; echo 3 > /proc/sys/vm/drop_caches`, `cat "$DST/f" > /dev/null`},
	{"read back, cached", largeBytes, `cp "$SRC" "$DST/f"; sync; cat "$DST/f" > /dev/null`, `cat "$DST/f" > /dev/null`},
}

func largeBytes(b *bench) int64   { return b.size }
func quarterBytes(b *bench) int64 { return b.size / 4 / 10240 * 10240 }

// row is what was measured of one case.
type row struct {
	name         string
	bytes        int64
	plain, mount []time.Duration
	client       []time.Duration // processor time of the command on the mount
	plainCPU     []time.Duration
	daemon       []time.Duration // processor time of the daemon
	memory       int64           // its peak
}

func (b *bench) run() ([]row, error) {
	if err := b.setup(); err != nil {
		return nil, err
	}
	defer b.m.Close()
	defer os.RemoveAll(filepath.Dir(b.source))
	draw := rand.New(rand.NewPCG(1, 2))
	var rows []row
	fmt.Print(header)
	for _, c := range cases {
		if !strings.Contains(c.name, b.only) {
			continue
		}
		var r row
		for rep := range b.reps + 1 {
			if rep <= 1 { // the pair before was to get ready
				r = row{name: c.name, bytes: c.bytes(b)}
			}
			pair := []func(testCase, *row) error{b.onPlain, b.onMount}
			if draw.IntN(2) == 0 {
				slices.Reverse(pair)
			}
			for _, run := range pair {
				if err := run(c, &r); err != nil {
					return nil, err
				}
			}
		}
		fmt.Print(r.line())
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) setup() (err error) {
	if b.dir != "" {
		os.Setenv("WHOLEFS_TEST_DIR", b.dir)
	}
	if b.source, _, _, err = harness.BigSource("bench", b.size); err != nil {
		return err
	}
	b.small = filepath.Join(filepath.Dir(b.source), "small")
	for i := range 2000 {
		dir := filepath.Join(b.small, fmt.Sprint(i/100))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if _, err := harness.WriteContent(filepath.Join(dir, fmt.Sprint(i)), fmt.Sprint(i), 4096); err != nil {
			return err
		}
	}
	if b.plain, err = harness.ScratchDir(); err != nil {
		return err
	}
	b.m, err = harness.Start(harness.Options{Flags: b.flags, Watchdog: time.Hour})
	return err
}

func (b *bench) onPlain(c testCase, r *row) error {
	if err := b.prepare(c, b.plain); err != nil {
		return err
	}
	res, err := b.once(c, b.plain)
	r.plain, r.plainCPU = append(r.plain, res.Took), append(r.plainCPU, res.CPU)
	return err
}

func (b *bench) onMount(c testCase, r *row) error {
	if err := b.prepare(c, b.m.Dir); err != nil {
		return err
	}
	before, err := cpu(b.m.Pid())
	if err != nil {
		return err
	}
	// 5 resets the high-water mark of the resident set.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", b.m.Pid()), []byte("5"), 0); err != nil {
		return err
	}
	res, err := b.once(c, b.m.Dir)
	if err != nil {
		return err
	}
	after, err := cpu(b.m.Pid())
	if err != nil {
		return err
	}
	peak, err := peakMemory(b.m.Pid())
	r.memory = max(r.memory, peak)
	r.mount, r.client = append(r.mount, res.Took), append(r.client, res.CPU)
	r.daemon = append(r.daemon, after-before)
	return err
}

// prepare does what a case needs and what is not measured.
func (b *bench) prepare(c testCase, dst string) error {
	if r := b.shell(c.prepare, b.env(dst)); !r.OK() {
		return fmt.Errorf("preparing %s: %v", c.name, r)
	}
	unix.Sync()
	return nil
}

// once runs and clears away one case in a directory.
func (b *bench) once(c testCase, dst string) (harness.Result, error) {
	r := b.shell("exec "+c.script, b.env(dst))
	if !r.OK() {
		return r, fmt.Errorf("%s: %v", c.name, r)
	}
	if r := b.shell(`rm -rf "$DST"/*`, b.env(dst)); !r.OK() {
		return r, fmt.Errorf("clearing after %s: %v", c.name, r)
	}
	return r, nil
}

func (b *bench) env(dst string) []string {
	return []string{"SRC=" + b.source, "SMALL=" + b.small, "DST=" + dst, fmt.Sprintf("QUARTER=%d", b.size/4)}
}

func (b *bench) shell(script string, env []string) harness.Result {
	return harness.Cmd{Args: []string{"bash", "-e", "-c", script}, Env: env, Timeout: 10 * time.Minute}.Run()
}

// ratios are the paired ones: plain time divided by the mount's.
func (r row) ratios() []float64 {
	all := make([]float64, len(r.mount))
	for i := range all {
		all[i] = r.plain[i].Seconds() / r.mount[i].Seconds()
	}
	return all
}

func bar(rows []row) error {
	for _, r := range rows {
		if r.memory > barMemory {
			return fmt.Errorf("%s: the daemon took %d MiB, over %d", r.name, r.memory>>20, barMemory>>20)
		}
		if ratio := median(r.ratios()); strings.HasPrefix(r.name, "cp, one large") && ratio < barRatio {
			return fmt.Errorf("%s: %.2f of plain, under %.2f", r.name, ratio, barRatio)
		}
	}
	return nil
}

func document(b bench, rows []row) string {
	var s strings.Builder
	s.WriteString("# Benchmarks\n\nWritten by `make bench DOCS=docs/BENCHMARKS.md`. Whole commands, each paired with the same command on the\n" +
		"plain directory's filesystem, in a drawn order; `sync` before each; medians, and the median of the paired\n" +
		"ratios with the smallest and the largest (plain time divided by the mount's: 1.00 is as fast as plain).\n\n")
	var uts unix.Utsname
	unix.Uname(&uts)
	fmt.Fprintf(&s, "Kernel %s, %d processors, %s; large file %d MiB; %d repetitions", unix.ByteSliceToString(uts.Release[:]), runtime.NumCPU(), runtime.Version(), b.size>>20, b.reps)
	if len(b.flags) > 0 {
		fmt.Fprintf(&s, "; flags %s", strings.Join(b.flags, " "))
	}
	s.WriteString(".\n\n" + header)
	for _, r := range rows {
		s.WriteString(r.line())
	}
	return s.String()
}
