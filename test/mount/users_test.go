package mount

import (
	"os"
	"strings"
	"testing"

	"github.com/wholefs/wholefs/test/harness"
)

// as runs a script as an ordinary user.
func as(uid uint32, dir, script string) harness.Result {
	c := harness.Shell(dir, script)
	c.UID = uid
	c.Env = []string{"HOME=/nonexistent"}
	return c.Run()
}

// What an ordinary user makes belongs to it, in the mount and in the store,
// and the kernel checks permissions.
func TestOrdinaryUsers(t *testing.T) {
	const alice, bob = 1501, 1502
	m := harness.Mount(t, harness.Options{})
	if err := os.Chmod(m.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if r := as(alice, m.Dir, `umask 027; echo hers > f; mkdir d; ln -s f l; mkfifo p; echo x > d/g; cat f`); r.Out != "hers\n" {
		t.Fatal(r)
	}
	for _, dir := range []string{m.Dir, m.Store} {
		r := harness.Must(t, harness.Shell(dir, `stat -c '%n %u:%g %a' f d l p d/g`))
		want := "f 1501:1501 640\nd 1501:1501 750\nl 1501:1501 777\np 1501:1501 640\nd/g 1501:1501 640\n"
		if r.Out != want {
			t.Errorf("%s has\n%swant\n%s", dir, r.Out, want)
		}
	}
	for _, script := range []string{"cat f", "echo x > f", "echo x >> f", "ls d", "touch d/x", "chmod 777 f", "chown 1502 f", "truncate -s 0 f", "setfattr -n user.a -v b f", "touch -d yesterday f"} {
		if r := as(bob, m.Dir, script); r.OK() || !strings.Contains(r.Err, "ermi") {
			t.Errorf("bob may %s: %v", script, r)
		}
	}
	harness.MustRun(t, "chmod", "1777", m.Dir)
	if r := as(bob, m.Dir, "mv f mine || rm f"); r.OK() {
		t.Errorf("the sticky bit is not honoured: %v", r)
	}
	if b, err := os.ReadFile(m.Out("f")); err != nil || string(b) != "hers\n" {
		t.Errorf("%q, %v", b, err)
	}
	// A replaced file keeps its owner; root writing into it does not take it.
	harness.Must(t, harness.Shell(m.Dir, "echo by root > f"))
	if r := as(alice, m.Dir, "cat f; stat -c %u f; echo again > f; cat f"); r.Out != "by root\n1501\nagain\n" {
		t.Error(r)
	}
	m.NoSessions(t)
}

// A write or truncate by another takes suid and sgid away, as on a disk.
func TestWriteClearsSetuid(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	plain := harness.TempDir(t)
	const script = `for i in w t a; do echo x > $i; chmod 6777 $i; done; chmod 777 .`
	const touch = `echo y > w; truncate -s 0 t; echo z >> a; python3 -c 'import os; [print(n, oct(os.stat(n).st_mode)) for n in "wta"]'`
	harness.Must(t, harness.Shell(m.Dir, script))
	harness.Must(t, harness.Shell(plain, script))
	want, got := as(1501, plain, touch), as(1501, m.Dir, touch)
	if !want.OK() || got.Out != want.Out {
		t.Errorf("plain: %v\nmount: %v", want, got)
	}
	if r := harness.Shell(m.Store, "stat -c '%n %a' w t a").Run(); r.Out != "w 777\nt 777\na 777\n" {
		t.Errorf("in the store: %v", r)
	}
}
