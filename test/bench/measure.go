package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const header = `| case | plain | wholefs | ratio (min-max) | command CPU, plain / wholefs | daemon CPU | daemon peak memory |
|---|---|---|---|---|---|---|
`

func (r row) line() string {
	ratios := r.ratios()
	return fmt.Sprintf("| %s | %s | %s | **%.2f** (%.2f-%.2f) | %.2f s / %.2f s | %.2f s | %d MiB |\n",
		r.name, r.speed(r.plain), r.speed(r.mount), median(ratios), slices.Min(ratios), slices.Max(ratios),
		median(r.plainCPU).Seconds(), median(r.client).Seconds(), median(r.daemon).Seconds(), r.memory>>20)
}

// speed is the median time and what it makes of the case's bytes.
func (r row) speed(all []time.Duration) string {
	m := median(all)
	return fmt.Sprintf("%.3f s, %.0f MiB/s", m.Seconds(), float64(r.bytes)/(1<<20)/m.Seconds())
}

func median[T cmp.Ordered](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// cpu is the processor time of all threads of the daemon, which closes no
// files of its own mount: its stat is safe to read.
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("unreadable stat of %d", pid)
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// peakMemory is VmHWM, the most that was resident since the last reset.
func peakMemory(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM of %d", pid)
}
