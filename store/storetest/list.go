package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/stretchr/testify/require"
)

var listTests = []testCase{
	{"names, types and inodes", nil, func(s *suite) {
		top := s.top()
		s.publish("file", []byte("x"))
		s.mkdir(top, "dir")
		want := map[string]uint32{"file": syscall.S_IFREG, "dir": syscall.S_IFDIR}
		if s.Features.Symlinks {
			_, err := top.Symlink("link", "x", s.Owner)
			require.NoError(s.t, err)
			want["link"] = syscall.S_IFLNK
		}
		if s.Features.Mknod {
			_, err := top.Mknod("fifo", syscall.S_IFIFO|0o600, 0, s.Owner)
			require.NoError(s.t, err)
			want["fifo"] = syscall.S_IFIFO
		}
		entries := s.names(top)
		require.Len(s.t, entries, len(want))
		for name, mode := range want {
			require.Equal(s.t, mode, entries[name].Mode, name)
			a, err := top.Lookup(name)
			require.NoError(s.t, err)
			if a.ID.Key == "" {
				require.Equal(s.t, a.ID.Ino, entries[name].Ino, name)
			}
		}
	}},
	{"again and again", nil, func(s *suite) {
		top := s.top()
		s.publish("a", nil)
		require.Len(s.t, s.names(top), 1)
		s.publish("b", nil)
		require.Len(s.t, s.names(top), 2, "what an open directory lists is not the past")
	}},
	{"stops when told", nil, func(s *suite) {
		for i := range 10 {
			s.publish(fmt.Sprint(i), nil)
		}
		seen := 0
		for _, err := range s.top().List(background) {
			require.NoError(s.t, err)
			if seen++; seen == 3 {
				break
			}
		}
		require.Equal(s.t, 3, seen)
	}},
	{"ends with its context", nil, func(s *suite) {
		s.publish("a", nil)
		ctx, cancel := context.WithCancel(background)
		cancel()
		var last error
		for _, err := range s.top().List(ctx) {
			last = err
		}
		require.True(s.t, errors.Is(last, context.Canceled), "%v", last)
	}},
	{"3,000 entries while others come and go", nil, func(s *suite) {
		const stay = 3000
		top := s.top()
		d := s.mkdir(top, "d")
		for i := range stay {
			_, err := d.Mknod(fmt.Sprintf("stays-%04d", i), syscall.S_IFREG|0o644, 0, s.Owner)
			require.NoError(s.t, err)
		}
		stop, stopped := make(chan struct{}), make(chan error)
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("comes-%d", i%200)
				_, err := d.Mknod(name, syscall.S_IFREG|0o644, 0, s.Owner)
				if err == nil && i%2 == 0 {
					err = d.Rename(name, d, "goes", 0)
				}
				if errors.Is(err, syscall.EEXIST) {
					err = d.Unlink(name)
				}
				select {
				case <-stop:
					stopped <- err
					return
				default:
				}
				if err != nil {
					<-stop
					stopped <- err
					return
				}
			}
		}()
		for range 5 {
			seen := make(map[string]int)
			for e, err := range d.List(background) {
				require.NoError(s.t, err)
				if strings.HasPrefix(e.Name, "stays-") {
					seen[e.Name]++
				}
			}
			require.Len(s.t, seen, stay)
			for name, n := range seen {
				require.Equal(s.t, 1, n, name)
			}
		}
		close(stop)
		require.NoError(s.t, <-stopped)
	}},
}
