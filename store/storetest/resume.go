package storetest

import (
	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

// afterCrash gives the suite the store as it is after a restart, and the
// upload found again in it. The staging file is still there if staged is.
func (s *suite) afterCrash(id string, f store.Final, staged store.Staged) (store.Upload, store.Final) {
	s.t.Helper()
	again := s.Reopen(s.t)
	require.NoError(s.t, s.Store.Close())
	s.Store = again
	f.Staged = staged
	u, err := again.Resume(background, id, store.Plan{Path: f.Path, PartSize: max(s.PartSize, 1<<20), Staged: staged})
	require.NoError(s.t, err)
	require.Equal(s.t, id, u.ID())
	return u, f
}

func (s *suite) completed(u store.Upload, f store.Final, want bool) {
	s.t.Helper()
	got, err := u.Completed(background, f)
	require.NoError(s.t, err)
	require.Equal(s.t, want, got)
}

var resumeTests = []testCase{
	{"completed, and not", nil, func(s *suite) {
		u, f := s.begin("f", []byte("x"))
		s.completed(u, f, false)
		_, err := u.Complete(background, f)
		require.NoError(s.t, err)
		s.completed(u, f, true)
		s.publish("f", []byte("y"))
		s.completed(u, f, false)
	}},
	{"completed, but not where another file is", nil, func(s *suite) {
		s.publish("f", []byte("x"))
		u, f := s.begin("f", []byte("x"))
		s.completed(u, f, false)
		f.Path = "missing/f"
		s.completed(u, f, false)
	}},
	{"crash before the publish", nil, func(s *suite) {
		u, f := s.begin("f", []byte("x"))
		s.absent(s.top(), "f")
		u, f = s.afterCrash(u.ID(), f, f.Staged)
		s.completed(u, f, false)
		_, err := u.Complete(background, f)
		require.NoError(s.t, err)
		require.Equal(s.t, "x", string(s.read("f")))
		s.completed(u, f, true)
	}},
	{"crash after the publish", nil, func(s *suite) {
		for _, durability := range []store.Durability{store.DurabilityProcess, store.DurabilityClose} {
			u, f := s.begin("f", []byte("x"))
			f.Durability = durability
			first, err := u.Complete(background, f)
			require.NoError(s.t, err)
			u, f = s.afterCrash(u.ID(), f, nil)
			s.completed(u, f, true)
			again, err := u.Complete(background, f)
			require.NoError(s.t, err, "there is nothing left to do")
			require.Equal(s.t, first.Attr.ID, again.Attr.ID)
			require.Equal(s.t, "x", string(s.read("f")))
		}
	}},
	{"crash after the publish, with the staging file still open", nil, func(s *suite) {
		u, f := s.begin("f", []byte("x"))
		f.Durability = store.DurabilityClose
		_, err := u.Complete(background, f)
		require.NoError(s.t, err)
		_, err = u.Complete(background, f)
		require.NoError(s.t, err)
		require.Equal(s.t, "x", string(s.read("f")))
	}},
	{"the staging file is lost", func(s *suite) bool { return !s.Store.Limits().EagerParts }, func(s *suite) {
		s.publish("f", []byte("old"))
		u, f := s.begin("f", []byte("new"))
		u, f = s.afterCrash(u.ID(), f, nil)
		s.completed(u, f, false)
		_, err := u.Complete(background, f)
		require.Error(s.t, err)
		require.Equal(s.t, "old", string(s.read("f")))
	}},
	{"parts that were sent are known", func(s *suite) bool { return s.Store.Limits().EagerParts }, func(s *suite) {
		u, f := s.begin("f", pattern(1, 3<<20))
		u, f = s.afterCrash(u.ID(), f, f.Staged)
		parts, err := u.Parts(background)
		require.NoError(s.t, err)
		require.Len(s.t, parts, len(f.Receipts))
		_, err = u.Complete(background, f)
		require.NoError(s.t, err)
	}},
	{"an id that is none", nil, func(s *suite) {
		for _, id := range []string{"", "x", "-", "1", "1-", "-1", "1-2-3", "1-2x", " 1-2", "01-2", "1--2", "99999999999999999999-1", "../../etc"} {
			_, err := s.Store.Resume(background, id, store.Plan{Path: "f"})
			require.Error(s.t, err, id)
		}
	}},
	{"abort", nil, func(s *suite) {
		s.publish("f", []byte("old"))
		u, f := s.begin("f", []byte("new"))
		require.NoError(s.t, u.Abort(background))
		require.NoError(s.t, u.Abort(background), "again, after a crash")
		s.completed(u, f, false)
		require.Equal(s.t, "old", string(s.read("f")))
	}},
}
