package storetest

import (
	"fmt"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

var renameTests = []testCase{
	{"to a new name", nil, func(s *suite) {
		top := s.top()
		s.publish("a", []byte("x"))
		require.NoError(s.t, top.Rename("a", top, "b", 0))
		s.absent(top, "a")
		require.Equal(s.t, "x", string(s.read("b")))
	}},
	{"to another directory", nil, func(s *suite) {
		top := s.top()
		d := s.mkdir(top, "d")
		s.publish("a", []byte("x"))
		require.NoError(s.t, top.Rename("a", d, "b", 0))
		s.absent(top, "a")
		require.Equal(s.t, "x", string(s.read("d/b")))
		require.NoError(s.t, d.Rename("b", top, "a", store.RenameNoReplace))
		require.Equal(s.t, "x", string(s.read("a")))
	}},
	{"keeps the identity", nil, func(s *suite) {
		top := s.top()
		made := s.publish("a", []byte("x"))
		require.NoError(s.t, top.Rename("a", top, "b", 0))
		a, err := top.Lookup("b")
		require.NoError(s.t, err)
		if made.ID.Key == "" {
			require.Equal(s.t, made.ID, a.ID)
		}
	}},
	{"replaces a file", nil, func(s *suite) {
		top := s.top()
		s.publish("a", []byte("new"))
		s.publish("b", []byte("old"))
		wantErr(s.t, syscall.EEXIST, top.Rename("a", top, "b", store.RenameNoReplace))
		require.Equal(s.t, "old", string(s.read("b")))
		require.NoError(s.t, top.Rename("a", top, "b", 0))
		require.Equal(s.t, "new", string(s.read("b")))
		s.absent(top, "a")
	}},
	{"a name to itself", nil, func(s *suite) {
		top := s.top()
		s.publish("a", []byte("x"))
		require.NoError(s.t, top.Rename("a", top, "a", 0))
		require.Equal(s.t, "x", string(s.read("a")))
	}},
	{"types must fit", nil, func(s *suite) {
		top := s.top()
		s.publish("f", []byte("x"))
		s.mkdir(top, "d")
		wantErr(s.t, syscall.EISDIR, top.Rename("f", top, "d", 0))
		wantErr(s.t, syscall.ENOTDIR, top.Rename("d", top, "f", 0))
	}},
	{"directories", nil, func(s *suite) {
		top := s.top()
		d := s.mkdir(top, "d")
		s.mkdir(top, "empty")
		s.mkdir(s.mkdir(top, "full"), "x")
		require.NoError(s.t, top.Rename("d", top, "empty", 0))
		wantErr(s.t, syscall.ENOTEMPTY, top.Rename("empty", top, "full", 0))
		wantErr(s.t, syscall.EINVAL, top.Rename("empty", d, "below", 0)) // into itself
	}},
	{"exchange", exchange, func(s *suite) {
		top := s.top()
		d := s.mkdir(top, "d")
		s.publish("a", []byte("1"))
		s.publish("d/b", []byte("2"))
		require.NoError(s.t, top.Rename("a", d, "b", store.RenameExchange))
		require.Equal(s.t, "2", string(s.read("a")))
		require.Equal(s.t, "1", string(s.read("d/b")))
		wantErr(s.t, syscall.ENOENT, top.Rename("a", d, "c", store.RenameExchange))
	}},
	{"flags that it does not know", nil, func(s *suite) {
		top := s.top()
		s.publish("a", nil)
		for _, flags := range []int{4, 1 << 30, store.RenameNoReplace | store.RenameExchange} {
			wantErr(s.t, syscall.EINVAL, top.Rename("a", top, "b", flags), fmt.Sprint(flags))
		}
		s.absent(top, "b")
	}},
}
