package journal

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var updateOld = flag.Bool("update-old", false, "make testdata/journal-v1 anew (only while version 1 is not released)")

const oldJournal = "testdata/journal-v1"

// TestOldJournal opens a journal that an earlier build of this version left:
// a first run ended cleanly, a second was killed. It must read the same for
// ever, and as often as it is opened.
func TestOldJournal(t *testing.T) {
	if *updateOld {
		makeOldJournal(t)
	}
	b, err := os.ReadFile(oldJournal + ".json")
	require.NoError(t, err)
	var want []Entry
	require.NoError(t, json.Unmarshal(b, &want))
	require.Len(t, want, 6)
	for i := range want { // JSON holds no odd bytes
		want[i].Session.Path, err = strconv.Unquote(want[i].Session.Path)
		require.NoError(t, err)
	}

	dir := t.TempDir()
	unpack(t, oldJournal+".tar.gz", dir)
	for range 2 {
		j := mustOpen(t, dir, Options{})
		all := mustLoad(t, j)
		require.Len(t, all, len(want))
		for i := range want {
			require.Equal(t, want[i].Session, all[i].Session)
			require.Equal(t, want[i].Parts, all[i].Parts)
		}
		damage, err := j.Check(t.Context())
		require.NoError(t, err)
		require.Empty(t, damage)
		mustClose(t, j)
	}
}

func makeOldJournal(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{})
	first := goldenSession()
	j.Put(first)
	for i := range int64(3) {
		j.PutPart(first.ID, part(i))
	}
	j.Put(with(func(s *Session) { s.ID, s.Path = "odd-bytes", "caf\xe9/\x00" }))
	j.Put(with(func(s *Session) { s.ID, s.Written = "spilled", extents(chunkExtents+7) }))
	j.Put(session("deleted"))
	j.PutPart("deleted", part(1))
	j.Put(session("changed"))
	j.PutPart("changed", part(1))
	j.PutPart("changed", part(2))
	mustClose(t, j)

	j = mustOpen(t, dir, Options{})
	j.Delete("deleted")
	j.DropParts("changed", 1)
	j.Put(with(func(s *Session) { s.ID, s.State, s.UploadID = "changed", StatePublishing, "upload-1" }))
	j.Put(with(func(s *Session) { s.ID, s.Size = "least", 0 }))
	j.Put(with(func(s *Session) { s.ID = "many-parts" }))
	for i := range int64(60) {
		j.PutPart("many-parts", part(i*i))
	}
	require.NoError(t, j.Sync(t.Context()))
	all := mustLoad(t, j)
	for i := range all {
		all[i].Session.Path = strconv.Quote(all[i].Session.Path)
	}
	pack(t, dir, oldJournal+".tar.gz")

	b, err := json.Marshal(all)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(oldJournal+".json", append(b, '\n'), 0o644))
}

func pack(t *testing.T, dir, name string) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	require.NoError(t, err)
	w := tar.NewWriter(z)
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		require.NoError(t, err)
		rel, _ := filepath.Rel(dir, path)
		fi, err := e.Info()
		require.NoError(t, err)
		h := &tar.Header{Name: filepath.ToSlash(rel), Mode: 0o600, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: fi.Size()}
		if e.IsDir() {
			h.Typeflag, h.Size, h.Mode = tar.TypeDir, 0, 0o700
			h.Name += "/"
			return w.WriteHeader(h)
		}
		if e.Name() == lockFile {
			return nil // names a process of this machine
		}
		require.NoError(t, w.WriteHeader(h))
		in, err := os.Open(path)
		require.NoError(t, err)
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	}))
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	require.NoError(t, f.Close())
}

func unpack(t *testing.T, name, dir string) {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			require.NoError(t, os.MkdirAll(path, 0o700))
			continue
		}
		out, err := os.Create(path)
		require.NoError(t, err)
		_, err = io.Copy(out, r)
		require.NoError(t, err)
		require.NoError(t, out.Close())
	}
}
