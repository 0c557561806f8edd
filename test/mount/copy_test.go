package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wholefs/wholefs/test/harness"
)

// A large copy: the directory shows nothing of it until cp is done, the
// mount shows it growing, and then the directory has it whole (W1, W2, W5).
func TestLargeCopyAppearsWhole(t *testing.T) {
	size := harness.EnvInt("WHOLEFS_TEST_BIG", 2<<30)
	src, want, remove, err := harness.BigSource("big", size)
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	stamp := time.Date(2021, 3, 4, 5, 6, 7, 890123456, time.UTC)
	if err := os.Chtimes(src, stamp, stamp); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(src, 0o640); err != nil {
		t.Fatal(err)
	}
	m := harness.Mount(t, harness.Options{})
	watch := harness.NewWatch(t, m.Store)

	cp := harness.Background(t, harness.Cmd{Args: []string{"cp", "-p", src, m.In("f")}, Timeout: 3 * time.Minute})
	var sizes []int64
	for cp.Running() {
		outside := m.Visible(t)
		// cp can be done between the two looks: only a copy that still
		// runs after the listing tells something.
		if cp.Running() && len(outside) > 0 {
			var st, _ = os.Stat(m.Out("f"))
			if st == nil || st.Size() != size {
				t.Fatalf("the directory shows %v during the copy", outside)
			}
		}
		if st, err := os.Stat(m.In("f")); err == nil {
			sizes = append(sizes, st.Size())
		}
		time.Sleep(5 * time.Millisecond)
	}
	if r := cp.Wait(); !r.OK() {
		t.Fatal(r)
	}

	st, err := os.Stat(m.Out("f"))
	if err != nil {
		t.Fatalf("not published when cp returned: %v", err)
	}
	if st.Size() != size || st.Mode().Perm() != 0o640 || !st.ModTime().Equal(stamp) {
		t.Errorf("published with size %d, mode %v, mtime %v", st.Size(), st.Mode(), st.ModTime())
	}
	watch.Published(t, "f", want) // and so its sha256 in the directory

	if !slices.IsSorted(sizes) {
		t.Errorf("the mount showed the file shrinking: %v", sizes)
	}
	grown := slices.Compact(slices.Clone(sizes))
	if size >= 1<<30 && len(grown) < 5 {
		t.Errorf("the mount showed only the sizes %v", grown)
	}
	inside, err := os.Stat(m.In("f"))
	if err != nil {
		t.Fatal(err)
	}
	if inside.Size() != size || inside.Mode().Perm() != 0o640 || !inside.ModTime().Equal(stamp) {
		t.Errorf("the mount shows size %d, mode %v, mtime %v", inside.Size(), inside.Mode(), inside.ModTime())
	}
	if r := (harness.Cmd{Args: []string{"cmp", src, m.In("f")}, Timeout: 2 * time.Minute}).Run(); !r.OK() {
		t.Errorf("read back through the mount: %v", r)
	}
	m.NoSessions(t)
	m.NoStaging(t)
}

// Fifty overwrites under the eyes of an observer that opens, reads and
// hashes in a loop: it sees whole versions only (W1).
func TestOverwriteShowsWholeVersionsOnly(t *testing.T) {
	const versions, size = 50, 3<<20 + 123
	m := harness.Mount(t, harness.Options{})
	known := map[string]int{}
	var sources []string
	for i := range versions {
		src, sum := harness.Source(t, fmt.Sprintf("version-%d", i), size+int64(i)*1000)
		known[sum] = i
		sources = append(sources, src)
	}
	first, firstSum := harness.Source(t, "first", size)
	if r := harness.Run("cp", first, m.Out("f")); !r.OK() {
		t.Fatal(r)
	}
	known[firstSum] = -1
	watch := harness.NewWatch(t, m.Store)
	stop := harness.Hashing(m.Out("f"))
	for _, src := range sources {
		harness.MustRun(t, "cp", src, m.In("f"))
	}
	seen := stop()
	distinct := 0
	for sum, n := range seen {
		if _, ok := known[sum]; !ok {
			t.Errorf("the observer saw %q %d times, which is no version", sum, n)
		} else {
			distinct++
		}
	}
	if distinct < 3 {
		t.Errorf("the observer saw only %d versions: it proves nothing", distinct)
	}
	watch.Saw(t, "f", func(sum string) bool { _, ok := known[sum]; return ok })
	if got := harness.MustSum(t, m.Out("f")); known[got] != versions-1 {
		t.Errorf("the last version is not there")
	}
	m.NoStaging(t)
}

// While a file is overwritten, the directory has the old one, whole.
func TestOldVersionStaysUntilClose(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	if err := os.WriteFile(m.Out("f"), []byte("the old one"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(m.In("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 10 {
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(m.Out("f")); err != nil || string(b) != "the old one" {
			t.Fatalf("after %d MiB the directory has %.20q, %v", i+1, b, err)
		}
		if st, err := os.Stat(m.In("f")); err != nil || st.Size() != int64(i+1)<<20 {
			t.Fatalf("after %d MiB the mount says %v, %v", i+1, st.Size(), err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(m.Out("f")); err != nil || st.Size() != 10<<20 {
		t.Fatalf("after close: %v, %v", st, err)
	}
}

// Replacing a file keeps its mode, owner and extended attributes.
func TestReplaceKeepsAttributes(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	harness.Must(t, harness.Shell(m.Store, `echo old > f; chmod 4751 f; chown 1234:2345 f; setfattr -n user.colour -v blue f; chmod 751 f`))
	harness.Must(t, harness.Shell(m.Dir, `echo new > f`))
	r := harness.Must(t, harness.Shell(m.Store, `cat f; stat -c '%a %u:%g' f; getfattr --only-values -n user.colour f`))
	if want := "new\n751 1234:2345\nblue"; r.Out != want {
		t.Errorf("got %q, want %q", r.Out, want)
	}
}

// An empty file is a whole file: touch, and a redirection that wrote nothing.
func TestEmptyFiles(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	harness.Must(t, harness.Shell(m.Dir, `touch a; : > b; true > c; touch -d '2001-02-03 04:05:06 UTC' d; mkdir sub; touch sub/e`))
	for _, name := range []string{"a", "b", "c", "d", "sub/e"} {
		harness.Eventually(t, 5*time.Second, name+" is published", func() bool {
			st, err := os.Stat(m.Out(name))
			return err == nil && st.Size() == 0
		})
	}
	want := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, dir := range []string{m.Dir, m.Store} {
		if st, err := os.Stat(filepath.Join(dir, "d")); err != nil || !st.ModTime().Equal(want) {
			t.Errorf("%s/d: %v, %v", dir, st.ModTime(), err)
		}
	}
	m.NoSessions(t)
}
