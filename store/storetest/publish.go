package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

var publishTests = []testCase{
	{"a new file, whole", nil, func(s *suite) {
		s.mkdir(s.top(), "d")
		for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 3<<20 + 17} {
			path := fmt.Sprintf("d/%d", size)
			content := pattern(7, size)
			a := s.publish(path, content)
			require.EqualValues(s.t, size, a.Size)
			require.True(s.t, a.IsRegular())
			require.Equal(s.t, content, s.read(path))
		}
	}},
	{"nothing is visible before", nil, func(s *suite) {
		top := s.top()
		u, f := s.begin("f", []byte("new"))
		require.NotEmpty(s.t, u.ID())
		s.absent(top, "f")
		require.Empty(s.t, s.names(top))
		_, err := u.Complete(background, f)
		require.NoError(s.t, err)
		require.Len(s.t, s.names(top), 1)
	}},
	{"replaces what was there", nil, func(s *suite) {
		old := s.publish("f", []byte("old"))
		u, f := s.begin("f", []byte("newer"))
		require.Equal(s.t, "old", string(s.read("f")), "until it is published")
		p, err := u.Complete(background, f)
		require.NoError(s.t, err)
		require.False(s.t, p.InPlace)
		require.NotEqual(s.t, old.ID, p.Attr.ID)
		require.EqualValues(s.t, 5, p.Attr.Size)
		require.Equal(s.t, "newer", string(s.read("f")))
		found, err := s.top().Lookup("f")
		require.NoError(s.t, err)
		require.Equal(s.t, p.Attr.ID, found.ID)
	}},
	{"an open file keeps the version that it opened", versions, func(s *suite) {
		content := pattern(1, 200_000)
		s.publish("f", content)
		f := s.openFile("f")
		defer f.Close()
		u, final := s.begin("f", pattern(2, 100))
		require.Equal(s.t, content, contentOf(s.t, f))
		_, err := u.Complete(background, final)
		require.NoError(s.t, err)
		require.Equal(s.t, content, contentOf(s.t, f))
		require.Equal(s.t, pattern(2, 100), s.read("f"))
	}},
	{"to where the file was renamed meanwhile", nil, func(s *suite) {
		s.mkdir(s.top(), "d")
		u, f := s.begin("f", []byte("x"))
		f.Path = "d/g"
		_, err := u.Complete(background, f)
		require.NoError(s.t, err)
		s.absent(s.top(), "f")
		require.Equal(s.t, "x", string(s.read("d/g")))
	}},
	{"no replace", nil, func(s *suite) {
		s.publish("f", []byte("old"))
		u, f := s.begin("f", []byte("new"))
		f.NoReplace = true
		_, err := u.Complete(background, f)
		wantErr(s.t, syscall.EEXIST, err)
		require.Equal(s.t, "old", string(s.read("f")))
		require.NoError(s.t, s.top().Unlink("f"))
		_, err = u.Complete(background, f)
		require.NoError(s.t, err, "the staging file was untouched")
		require.Equal(s.t, "new", string(s.read("f")))
	}},
	{"onto a directory", nil, func(s *suite) {
		s.mkdir(s.top(), "d")
		u, f := s.begin("d", []byte("x"))
		_, err := u.Complete(background, f)
		wantErr(s.t, syscall.EISDIR, err)
		f.Path = ""
		_, err = u.Complete(background, f)
		wantErr(s.t, syscall.EISDIR, err)
	}},
	{"into a directory that is gone", nil, func(s *suite) {
		top := s.top()
		s.mkdir(top, "d")
		u, f := s.begin("d/f", []byte("x"))
		require.NoError(s.t, top.Rmdir("d"))
		_, err := u.Complete(background, f)
		wantErr(s.t, syscall.ENOENT, err)
		require.Empty(s.t, s.names(top))
		done, err := u.Completed(background, f)
		require.NoError(s.t, err)
		require.False(s.t, done)
		s.mkdir(top, "d")
		_, err = u.Complete(background, f)
		require.NoError(s.t, err, "the staging file was untouched")
		require.Equal(s.t, "x", string(s.read("d/f")))
	}},
	{"into what is no directory", nil, func(s *suite) {
		s.publish("f", []byte("old"))
		u, f := s.begin("f/g", []byte("x"))
		_, err := u.Complete(background, f)
		wantErr(s.t, syscall.ENOTDIR, err)
		require.Equal(s.t, "old", string(s.read("f")))
	}},
	{"a size that is not the content's", nil, func(s *suite) {
		s.publish("f", []byte("old"))
		for _, wrong := range []int64{2, 4} {
			u, f := s.begin("f", []byte("new"))
			f.Size = wrong
			_, err := u.Complete(background, f)
			wantErr(s.t, syscall.EIO, err)
			require.Equal(s.t, "old", string(s.read("f")))
		}
	}},
	{"a context that has ended", nil, func(s *suite) {
		u, f := s.begin("f", []byte("x"))
		ctx, cancel := context.WithCancel(background)
		cancel()
		_, err := u.Complete(ctx, f)
		require.True(s.t, errors.Is(err, context.Canceled), "%v", err)
		s.absent(s.top(), "f")
		_, err = u.Complete(background, f)
		require.NoError(s.t, err)
	}},
	{"with the sync of file and directory", nil, func(s *suite) {
		for _, d := range []store.Durability{store.DurabilityProcess, store.DurabilityClose, store.DurabilityPart} {
			u, f := s.begin("f", pattern(byte(d), 1000))
			f.Durability = d
			_, err := u.Complete(background, f)
			require.NoError(s.t, err)
			require.Equal(s.t, pattern(byte(d), 1000), s.read("f"))
		}
	}},
	{"several names stay one file", hardLinks, func(s *suite) {
		top := s.top()
		old := s.publish("f", pattern(1, 10_000))
		n, err := top.OpenNode("f")
		require.NoError(s.t, err)
		defer n.Close()
		_, err = top.Link("g", n)
		require.NoError(s.t, err)
		for _, size := range []int{20_000, 10, 0, 5000} {
			u, f := s.begin("f", pattern(2, size))
			f.Base = old.ID
			p, err := u.Complete(background, f)
			require.NoError(s.t, err)
			require.True(s.t, p.InPlace)
			require.Equal(s.t, old.ID, p.Attr.ID)
			require.EqualValues(s.t, size, p.Attr.Size)
			require.Equal(s.t, pattern(2, size), s.read("f"))
			require.Equal(s.t, pattern(2, size), s.read("g"))
		}
		u, f := s.begin("f", nil)
		f.NoReplace = true
		_, err = u.Complete(background, f)
		wantErr(s.t, syscall.EEXIST, err)
		require.Equal(s.t, pattern(2, 5000), s.read("g"))
	}},
	{"a new file takes one of several names", hardLinks, func(s *suite) {
		top := s.top()
		s.publish("f", pattern(1, 100))
		n, err := top.OpenNode("f")
		require.NoError(s.t, err)
		defer n.Close()
		_, err = top.Link("g", n)
		require.NoError(s.t, err)
		u, f := s.begin("f", pattern(2, 50)) // no next version of what is there: Base is not set
		p, err := u.Complete(background, f)
		require.NoError(s.t, err)
		require.False(s.t, p.InPlace)
		require.Equal(s.t, pattern(2, 50), s.read("f"))
		require.Equal(s.t, pattern(1, 100), s.read("g"))
	}},
	{"at any moment a reader sees one version in full", nil, func(s *suite) {
		const rounds = 60
		versions := [][]byte{pattern(1, 30_000), pattern(2, 70_001)}
		s.publish("f", versions[0])
		done := make(chan struct{})
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				d, err := s.Store.OpenDir("")
				if err != nil {
					s.t.Error(err)
					return
				}
				defer d.Close()
				for {
					select {
					case <-done:
						return
					default:
					}
					f, err := d.OpenFile("f")
					if err != nil {
						s.t.Errorf("a moment without the name: %v", err)
						return
					}
					if got := string(contentOf(s.t, f)); got != string(versions[0]) && got != string(versions[1]) {
						s.t.Errorf("%d bytes that are no version", len(got))
					}
					_ = f.Close()
				}
			})
		}
		for i := range rounds {
			s.publish("f", versions[(i+1)%2])
		}
		close(done)
		readers.Wait()
	}},
	{"many at once to one name", nil, func(s *suite) {
		const writers = 16
		outcome := s.publishAtOnce(writers, false)
		for i, err := range outcome {
			require.NoError(s.t, err, i)
		}
		got := s.read("f")
		require.NotEmpty(s.t, got)
		require.Equal(s.t, pattern(got[3], len(got)), got)
		require.Len(s.t, s.names(s.top()), 1)
	}},
	{"many at once, and only the first", nil, func(s *suite) {
		won := -1
		for i, err := range s.publishAtOnce(16, true) {
			if err == nil {
				require.Equal(s.t, -1, won, "two were told that they were first")
				won = i
				continue
			}
			wantErr(s.t, syscall.EEXIST, err)
		}
		require.NotEqual(s.t, -1, won)
		got := s.read("f")
		require.EqualValues(s.t, won+1, got[3])
	}},
}

// publishAtOnce has n goroutines publish a version each to "f", whose fourth
// byte is its number from 1.
func (s *suite) publishAtOnce(n int, noReplace bool) []error {
	uploads, finals := make([]store.Upload, n), make([]store.Final, n)
	for i := range n {
		uploads[i], finals[i] = s.begin("f", pattern(byte(i+1), 1000*(i+1)))
		finals[i].NoReplace = noReplace
	}
	outcome := make([]error, n)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			_, outcome[i] = uploads[i].Complete(background, finals[i])
		})
	}
	close(start)
	all.Wait()
	return outcome
}
