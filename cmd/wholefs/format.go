package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wholefs/wholefs/control"
)

// humanBytes writes a number of bytes for people: 512 B, 1.5 GiB.
func humanBytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), -1
	for v >= 1023.95 && unit < len(sizeSuffixes)-1 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, sizeSuffixes[unit])
}

// humanAge writes a duration for people, with two units at most.
func humanAge(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// printable writes a path so that it cannot move the cursor: names hold any
// byte but '/' and NUL.
func printable(path string) string {
	if quoted := strconv.Quote(path); quoted != `"`+path+`"` {
		return quoted
	}
	return path
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// sessionTable writes sessions as lines under a heading.
func sessionTable(w io.Writer, sessions []control.Session, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tPATH\tSTATE\tSIZE\tPARTS\tAGE\tREASON")
	for _, s := range sessions {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\n", s.ID, printable(s.Path), s.State,
			humanBytes(s.Size), s.PartsComplete, s.Parts, humanAge(now.Sub(s.Created)), oneLine(s.Reason))
	}
	return t.Flush()
}

// extents writes byte ranges, at most a few of them.
func extents(list []control.Extent) string {
	const most = 8
	var words []string
	for i, e := range list {
		if i == most {
			words = append(words, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		words = append(words, fmt.Sprintf("%d-%d", e.Off, e.End-1))
	}
	return strings.Join(words, ", ")
}
