package journal

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	j, err := Open(dir, Options{})
	require.NoError(t, err)
	s := Session{ID: "a", Path: "x/\xffy", State: StateOpen, PartSize: 4096, Size: 10, Created: time.Now().UTC()}
	j.Put(s)
	j.PutPart("a", Part{Number: 3, Size: 5, CRC: 7, Token: "t"})
	require.NoError(t, j.PutPart("a", Part{Number: 1, Size: 5, CRC: 7}).Wait(ctx))
	e, err := j.Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, Entry{s, []Part{{1, 5, 7, ""}, {3, 5, 7, "t"}}}, e)
	require.NoError(t, j.Sync(ctx))
	require.NoError(t, j.Close())
	j, err = Open(dir, Options{})
	require.NoError(t, err)
	all, err := j.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, []Entry{e}, all)
	require.NoError(t, j.Delete("a").Wait(ctx))
	all, err = j.Load(ctx)
	require.NoError(t, err)
	require.Empty(t, all)
	require.NoError(t, j.Close())
}
