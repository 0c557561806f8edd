package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// size is a flag that counts bytes: 4096, 4K, 16M, 1G, 2T. Suffixes are
// powers of 1024 and may be followed by B or iB.
type size int64

var _ pflag.Value = (*size)(nil)

const sizeSuffixes = "KMGTPE"

// Set parses a size.
func (s *size) Set(text string) error {
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "B"), "I")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte(sizeSuffixes, number[n-1]); i >= 0 {
			shift, number = 10*(i+1), number[:n-1]
		}
	}
	v, err := strconv.ParseUint(number, 10, 63)
	if err != nil || v > math.MaxInt64>>shift {
		return errors.New("not a size: use bytes, or a number with K, M, G or T")
	}
	*s = size(v << shift)
	return nil
}

// String writes the size as Set reads it, with the largest suffix that is exact.
func (s *size) String() string {
	v, suffix := int64(*s), ""
	for i := 0; i < len(sizeSuffixes) && v != 0 && v%1024 == 0; i++ {
		v, suffix = v/1024, sizeSuffixes[i:i+1]
	}
	return strconv.FormatInt(v, 10) + suffix
}

// Type names the value in the help text.
func (s *size) Type() string { return "SIZE" }

// duration is a flag that takes Go's durations and also days: 7d, 1d12h.
type duration time.Duration

var _ pflag.Value = (*duration)(nil)

// Set parses a duration.
func (d *duration) Set(text string) error {
	bad := errors.New("not a duration: use 90s, 10m, 1h30m or 7d")
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || (found && strings.HasPrefix(rest, "-")) {
		return bad
	}
	v := time.Duration(0)
	if rest != "" {
		if v, err = time.ParseDuration(rest); err != nil {
			return bad
		}
	} else if !found {
		return bad
	}
	if v < 0 || n > 36500 {
		return bad
	}
	*d = duration(time.Duration(n)*24*time.Hour + v)
	return nil
}

// String writes the duration as Set reads it, in whole days where it is some.
func (d *duration) String() string {
	v := time.Duration(*d)
	if day := 24 * time.Hour; v >= day && v%day == 0 {
		return fmt.Sprintf("%dd", v/day)
	}
	text := v.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Type names the value in the help text.
func (d *duration) Type() string { return "DURATION" }

// choice is a flag that takes one of a few words.
type choice struct {
	word  string
	words []string
}

var _ pflag.Value = (*choice)(nil)

// Set takes one of the words.
func (c *choice) Set(text string) error {
	for _, w := range c.words {
		if text == w {
			c.word = text
			return nil
		}
	}
	return fmt.Errorf("choose one of %s", strings.Join(c.words, ", "))
}

func (c *choice) String() string { return c.word }

// Type names the value in the help text.
func (c *choice) Type() string { return strings.Join(c.words, "|") }
