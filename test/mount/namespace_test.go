package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wholefs/wholefs/test/harness"
)

// sameness is what programs do to a tree. Each script runs in a plain
// directory and in the mount and must say the same, end the same and leave
// the same; then the store's directory must hold what the mount shows (W5).
var sameness = []struct{ name, script string }{
	{"mkdir and rm", `mkdir -p a/b/c; touch a/b/c/f; ls -R a; rmdir a/b/c 2>&1 || true; rm -r a; ls; mkdir x; mkdir x 2>&1 || true; rmdir nosuch 2>&1 || true`},
	{"mv", `
echo 1 > a; mv a b; cat b; mkdir d; mv b d/; echo 2 > b; mv -f b d/b; cat d/b; mv d e; cat e/b
mv e/b .; echo 3 > c; mv -n c b; cat b c; mkdir f; mv f e/; mv b e/f/; find . | sort; mv e e/f 2>&1 || true`},
	{"mv onto directories", `mkdir a b; touch b/x; mv -T a b 2>&1 || true; rm b/x; mv -T a b; ls; touch f; mv -T f b 2>&1 || true; mv -T b f 2>&1 || true`},
	{"exchange and noreplace", `
python3 - <<'P'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def ren(a, b, flags):
    r = libc.renameat2(-100, a.encode(), -100, b.encode(), flags)
    print(a, b, flags, r, os.strerror(ctypes.get_errno()) if r else "")
open("a","w").write("a"); open("b","w").write("b"); os.mkdir("d")
ren("a", "b", 1); ren("a", "c", 1); ren("c", "b", 2); ren("b", "d", 2); ren("x", "b", 2)
P
cat c d; ls`},
	{"hard links", `
echo one > a; ln a b; stat -c '%h %s' a b; echo two >> a; cat b; echo three > b; cat a; rm a; stat -c %h b; cat b
ln b c; mv c b 2>&1 || true; ls; ln -s b s; ln -L s l; ln nosuch x 2>&1 || true; mkdir d; ln d dd 2>&1 || true; ln b d/b; stat -c '%h' d/b`},
	{"symlinks", `
ln -s target l; readlink l; cat l 2>&1 || true; echo x > l; cat target; ln -s nowhere/x dangling; stat -c '%F %s' dangling
ln -sfn other l; readlink l; ln -s loop loop; cat loop 2>&1 || true; mkdir d; ln -s d dl; touch dl/f; ls d; rm dl; ls
chown -h 12:34 l; stat -c '%u:%g' l; touch -h -d '2001-02-03 UTC' l; stat -c '%Y' l`},
	{"chmod and chown", `
touch f; for m in 000 001 644 0755 4755 2755 1777 6711 7777; do chmod $m f; stat -c %a f; done
mkdir d; chmod 1777 d; stat -c %a d; chown 123:456 f; stat -c '%u:%g %a' f; chown :7 f; stat -c %u:%g f
umask 077; touch g; mkdir e; stat -c %a g e; umask 0; touch h; mkdir i; stat -c %a h i; install -m 4755 /dev/null s; stat -c %a s`},
	{"setgid directories", `mkdir d; chgrp 77 d; chmod 2775 d; mkdir d/e; touch d/f; echo x > d/g; stat -c '%a %g' d/e d/f d/g; cd d; mkfifo p; stat -c %g p`},
	{"times", `
touch -d '2001-02-03 04:05:06.123456789 UTC' f; stat -c '%y' f; touch -a -d '1999-01-01 UTC' f; stat -c '%x %y' f; touch -m -r f g
mkdir d; touch -d '2010-10-10 UTC' d; stat -c %Y d; echo x > h; touch -d '2030-01-01 UTC' h; stat -c %Y h; touch -c nosuch; touch -d '1960-01-01 UTC' old; stat -c %Y old`},
	{"xattrs", `
echo x > f; setfattr -n user.a -v 1 f; setfattr -n user.b -v '' f; getfattr -d f; getfattr -n user.nosuch f 2>&1 || true
setfattr -x user.a f; getfattr -d f; setfattr -x user.a f 2>&1 || true; mkdir d; setfattr -n user.dir -v y d; getfattr -d d
python3 - <<'P'
import os
os.setxattr("f", "user.big", b"z" * 2000); print(len(os.getxattr("f", "user.big")), sorted(os.listxattr("f")))
for flag, name in ((os.XATTR_CREATE, "user.big"), (os.XATTR_REPLACE, "user.none")):
    try: os.setxattr("f", name, b"", flag)
    except OSError as e: print(e.strerror)
with open("g", "w") as f:
    f.write("x"); os.setxattr(f.fileno(), "user.open", b"1"); print(os.getxattr("g", "user.open"))
print(os.getxattr("g", "user.open"))
P`},
	{"acl", `mkdir d; setfacl -m u:1001:rwx,d:u:1002:r-x d; getfacl -cn d; touch d/f; mkdir d/s; getfacl -cn d/f d/s; echo x > g; setfacl -m u:5:rw g; getfacl -cn g; chmod 600 g; getfacl -cn g; echo y > g; getfacl -cn g`},
	{"special files", `mkfifo p; stat -c %F p; (echo through > p &) ; cat p; mknod null c 1 3; stat -c '%F %t %T' null; mknod b b 7 9; stat -c '%F %t %T' b; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("s")'; stat -c %F s; rm p s null b; ls`},
	{"three thousand entries", `mkdir d; cd d; for i in $(seq 3000); do : > "file-$i"; done; ls | wc -l; find . -type f | sort | sha256sum; ls -U | sort | uniq -d; rm file-1*; ls | wc -l; cd ..; rm -r d; ls`},
	{"long and strange names", `
n=$(printf 'n%.0s' $(seq 255)); echo x > "$n"; cat "$n"; mkdir "d$(printf 'n%.0s' $(seq 254))"; touch "${n}n" 2>&1 || true
printf a > $'\xff\xfe\x80'; printf b > $'new\nline'; printf c > ' '; printf d > '*?['; printf e > 'ünï'; printf f > '.hidden'; printf g > '-rf'; printf h > '.wholefsx'; printf i > 'x.wholefs'
ls -A | LC_ALL=C sort | od -c | tail -n 3; cat -- $'\xff\xfe\x80' $'new\nline' ' ' '*?[' 'ünï' .hidden -rf; mv $'\xff\xfe\x80' $'\x80'; cat $'\x80'`},
	{"deep paths", `d=$(printf 'dir-%.0s' $(seq 50)); (for i in $(seq 40); do mkdir "$d"; cd -P "$d" 2> /dev/null || cd "./$d"; done; echo deep > f; cat f; mv f g; cat g); find . | tail -n 1 | wc -c > /dev/null; rm -r "$d"; ls`},
	{"sparse cp", `
truncate -s 10M a; printf mid | dd of=a bs=1 seek=5000000 conv=notrunc status=none; cp --sparse=always a b; cmp a b; stat -c %s b
[ $(stat -c %b b) -lt 5000 ] && echo sparse; cp --sparse=never a c; cmp a c; truncate -s 3M d; stat -c '%s' d; cat d | tr -d '\0' | wc -c`},
	{"truncate", `
echo 0123456789 > f; truncate -s 4 f; cat f; echo; truncate -s 8 f; od -c f; truncate -s 0 f; stat -c %s f; truncate -s +5 f; stat -c %s f
seq 100000 > g; truncate -s 100 g; sha256sum < g; truncate -s 50000 g; sha256sum < g; echo end >> g; sha256sum < g; truncate -s 1 -c nosuch; ls`},
	{"fallocate", `
fallocate -l 1M f; stat -c %s f; fallocate -n -l 2M f; stat -c %s f; seq 200000 > g; fallocate -p -o 4096 -l 8192 g; sha256sum < g; stat -c %s g
fallocate -z -o 100 -l 50000 g; sha256sum < g; fallocate -z -o 1300000 -l 100000 g; stat -c %s g; sha256sum < g`},
	{"rewrite in the middle", `
seq 300000 > f; printf XXXXX | dd of=f bs=1 seek=1000 conv=notrunc status=none; printf YYYYY | dd of=f bs=1 seek=1500000 conv=notrunc status=none
sha256sum < f; stat -c %s f; dd if=f bs=1 skip=998 count=10 status=none | od -c; printf Z | dd of=f bs=1 seek=3000000 conv=notrunc status=none; sha256sum < f`},
	{"append", `for i in $(seq 50); do echo line $i >> f; done; sha256sum < f; (for i in $(seq 20); do echo a >> g; done) & (for i in $(seq 20); do echo b >> g; done) & wait; sort g | uniq -c; rm g`},
	{"tar", `
mkdir -p t/a/b; seq 10000 > t/a/f; ln t/a/f t/a/g; ln -s f t/a/l; touch -d '2011-11-11 UTC' t/a/b/e; chmod 750 t/a/b; mkfifo t/p; chown 5:6 t/a/f
tar cf x.tar t; mkdir u; tar xpf x.tar -C u; (cd u && find . -printf '%P %y %m %n %s %U:%G %l\n' | LC_ALL=C sort | grep -v ' d ' ); stat -c %Y u/t/a/b/e; tar df x.tar -C u; tar czf y.tgz t; tar tzf y.tgz | sort; rm y.tgz x.tar`},
	{"rsync", `mkdir -p s/d; seq 1000 > s/a; seq 2000 > s/d/b; ln -s a s/l; chmod 600 s/a; rsync -a s/ t/; diff -r s t; echo more >> s/a; rm s/d/b; rsync -a --delete s/ t; rsync -a --delete s/ t; find t | sort; rsync -a --inplace s/a t/a; cmp s/a t/a; rsync -aH --append s/a t/a; cmp s/a t/a`},
	{"cp variants", `mkdir a; seq 5000 > a/f; ln a/f a/g; ln -s f a/l; touch -d '2005-05-05 UTC' a/f; cp -a a b; diff -r a b; stat -c '%h %Y' b/f; cp -r a c; cp -l a/f d; cp -u a/f e; cp --reflink=auto a/f h; cmp a/f h; cp -f h h2; cp --remove-destination h h2; cp --backup h h2; ls`},
	{"sed and patch style", `seq 100 > f; sed -i 's/5/five/' f; sha256sum < f; sed -i.bak 1d f; ls; sort -o f f; sha256sum < f; split -l 10 f part.; ls | wc -l; cat part.* | cmp - f; install -m 640 f g; stat -c %a g; shred -u g; ls | wc -l`},
	{"seek", `python3 - <<'P'
import os
with open("f", "wb") as f:
    f.write(b"a" * 4096); f.seek(1 << 20); f.write(b"b" * 4096); f.seek(10); f.write(b"middle")
fd = os.open("f", os.O_RDONLY)
print(os.lseek(fd, 0, os.SEEK_END), os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 8192, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE))
try: os.lseek(fd, 1 << 30, os.SEEK_DATA)
except OSError as e: print(e.strerror)
print(os.pread(fd, 20, 0), os.pread(fd, 10, 5000), os.pread(fd, 10, 1 << 30))
P`},
	{"read back while writing", `python3 - <<'P'
import os
with open("f", "w+b", buffering=0) as f:
    for i in range(200):
        f.write(bytes([i]) * 5000)
        assert os.fstat(f.fileno()).st_size == (i + 1) * 5000
        assert os.path.getsize("f") == (i + 1) * 5000
        with open("f", "rb") as g:
            g.seek(i * 5000); assert g.read() == bytes([i]) * 5000
    f.seek(0); f.write(b"head"); f.seek(0); print(f.read(8)); os.fsync(f.fileno()); f.truncate(10); print(os.fstat(f.fileno()).st_size)
P
od -c f`},
	{"open flags", `python3 - <<'P'
import os
def go(what, f):
    try: print(what, f())
    except OSError as e: print(what, e.strerror)
go("excl", lambda: os.close(os.open("f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)))
go("excl again", lambda: os.open("f", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
go("absent", lambda: os.open("nosuch", os.O_RDONLY))
go("dir for writing", lambda: os.open(".", os.O_WRONLY))
go("file as dir", lambda: os.open("f", os.O_RDONLY | os.O_DIRECTORY))
go("under file", lambda: os.open("f/x", os.O_RDONLY))
os.symlink("f", "l"); go("nofollow", lambda: os.open("l", os.O_RDONLY | os.O_NOFOLLOW))
fd = os.open("f", os.O_RDONLY); go("write on read", lambda: os.write(fd, b"x"))
fd = os.open("f", os.O_WRONLY); go("read on write", lambda: os.read(fd, 1)); os.write(fd, b"abc"); os.close(fd)
fd = os.open("f", os.O_RDWR | os.O_APPEND); os.write(fd, b"def"); os.lseek(fd, 0, 0); print(os.read(fd, 10)); os.close(fd)
fd = os.open("f", os.O_RDWR | os.O_TRUNC); print(os.fstat(fd).st_size); os.close(fd)
fd = os.open("f", os.O_PATH); print(os.fstat(fd).st_size)
P`},
	{"locks", `python3 - <<'P'
import fcntl, os, subprocess, sys
f = open("f", "w"); fcntl.flock(f, fcntl.LOCK_EX)
g = open("f")
try: fcntl.flock(g, fcntl.LOCK_SH | fcntl.LOCK_NB)
except OSError as e: print(e.strerror)
fcntl.flock(f, fcntl.LOCK_UN); fcntl.flock(g, fcntl.LOCK_SH | fcntl.LOCK_NB)
fcntl.lockf(f, fcntl.LOCK_EX, 10)
print(subprocess.run([sys.executable, "-c", "import fcntl\nf=open('f','r+')\ntry: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 5)\nexcept OSError as e: print(e.strerror)"], capture_output=True, text=True).stdout)
P`},
	{"tempfile and zipfile", `TMPDIR=. python3 - <<'P'
import tempfile, zipfile, os, gzip, shelve, json
with tempfile.NamedTemporaryFile(dir=".", delete=False) as f: f.write(b"x" * 100000); name = f.name
os.rename(name, "named")
with tempfile.TemporaryFile(dir=".") as f: f.write(b"y" * 100000); f.seek(0); print(len(f.read()))
with zipfile.ZipFile("z.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for i in range(50): z.writestr(zipfile.ZipInfo(f"f{i}"), str(i) * 1000)
with zipfile.ZipFile("z.zip", "a") as z: z.writestr(zipfile.ZipInfo("late"), "late")
with zipfile.ZipFile("z.zip") as z: print(z.testzip(), len(z.namelist()))
with gzip.GzipFile("g.gz", "wb", mtime=0) as g: g.write(b"q" * 1000000)
print(len(gzip.open("g.gz").read()))
with tempfile.TemporaryDirectory(dir=".") as d: open(os.path.join(d, "f"), "w").write("1")
print(sorted(os.listdir(".")))
P`},
	{"memory map", `python3 - <<'P'
import mmap, os
with open("f", "wb") as f: f.write(b"." * 100000)
with open("f", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0); m[50000:50005] = b"HELLO"; print(m[49998:50007]); m.flush()
    f.seek(50000); print(f.read(5)); f.seek(10); f.write(b"written"); f.flush(); print(m[8:20]); m.close()
print(open("f", "rb").read()[50000:50005])
with open("f", "rb") as f:
    m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(len(m), m[10:17]); m.close()
P
sha256sum < f`},
	{"sqlite", `python3 - <<'P'
import sqlite3
for mode in ("delete", "wal"):
    db = sqlite3.connect("t.db"); print(db.execute("pragma journal_mode=" + mode).fetchone())
    db.execute("create table if not exists t (a integer primary key, b text)")
    for i in range(50):
        with db: db.execute("insert into t (b) values (?)", (str(i) * 100,))
    other = sqlite3.connect("t.db"); print(other.execute("select count(*) from t").fetchone(), other.execute("pragma integrity_check").fetchone()); other.close()
    db.execute("pragma journal_mode=delete"); db.close()
P
sqlite3 t.db 'select count(*), sum(length(b)) from t'; sqlite3 t.db vacuum; sqlite3 t.db 'pragma integrity_check'; rm t.db; ls`},
	{"git", `
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' HOME=/nonexistent
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main r; cd r; seq 1000 > f; mkdir d; echo x > d/g; git add .; git commit -q -m one; for i in $(seq 10); do echo $i >> f; git commit -q -a -m "c$i"; done
git fsck --strict 2>&1; git gc -q; git log --oneline | wc -l; git rev-parse HEAD; cd ..; git clone -q r s; diff r/f s/f; cd s; git checkout -q -b b; git mv f h; git commit -q -m mv; git push -q origin b; cd ../r; git merge -q b; ls; git status --short; cd ..; rm -rf r s`},
}

func TestSameAsPlainDirectory(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	for _, c := range sameness {
		t.Run(c.name, func(t *testing.T) {
			plain := filepath.Join(harness.TempDir(t), "case")
			name := strings.ReplaceAll(c.name, " ", "-")
			for _, dir := range []string{plain, m.In(name)} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			want, got := inDir(plain, c.script), inDir(m.In(name), c.script)
			if want.TimedOut || want.Code != 0 {
				t.Fatalf("the plain directory: %v", want)
			}
			if got.Out != want.Out || got.Code != want.Code || got.TimedOut {
				t.Errorf("the mount answers otherwise.\nplain: %v\nmount: %v", want, got)
			}
			m.NoSessions(t)
			harness.SameTrees(t, plain, m.In(name), harness.TreeOptions{Owner: true})
			harness.SameTrees(t, m.In(name), m.Out(name), harness.TreeOptions{Owner: true, Mtime: true})
			if r := harness.Run("diff", "-r", "--no-dereference", m.Out(name), m.In(name)); r.TimedOut || (r.Code != 0 && !strings.Contains(r.Out, "fifo") && !strings.Contains(r.Out, "special")) {
				t.Errorf("diff -r of the store and the mount: %v", r)
			}
		})
	}
	m.NoStaging(t)
}

func inDir(dir, script string) harness.Result {
	c := harness.Shell(dir, script)
	c.Timeout = 90 * 1e9
	return c.Run()
}

// In and out of the mount: mv and cp between filesystems.
func TestMoveInAndOut(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	dir := harness.TempDir(t)
	harness.Must(t, harness.Shell(dir, "mkdir -p t/u; seq 100000 > t/f; seq 9 > t/u/g; ln -s f t/l; touch -d '2009-09-09 UTC' t/f; cp -a t keep"))
	harness.MustRun(t, "mv", filepath.Join(dir, "t"), m.Dir)
	harness.SameTrees(t, filepath.Join(dir, "keep"), m.Out("t"), harness.TreeOptions{Owner: true})
	harness.MustRun(t, "diff", "-r", filepath.Join(dir, "keep"), m.In("t"))
	harness.MustRun(t, "mv", m.In("t"), dir)
	harness.SameTrees(t, filepath.Join(dir, "keep"), filepath.Join(dir, "t"), harness.TreeOptions{Owner: true})
	if seen := m.Visible(t); len(seen) != 0 {
		t.Errorf("left in the store: %v", seen)
	}
	m.NoSessions(t)
	m.NoStaging(t)
}

// The directory that wholefs keeps for itself is no name in the mount.
func TestHiddenDirectory(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	if _, err := os.Stat(m.Out(harness.Hidden)); err != nil {
		t.Fatalf("where is it? %v", err)
	}
	r := harness.Must(t, harness.Shell(m.Dir, "ls -A; find ."))
	if r.Out != ".\n" {
		t.Errorf("listed: %q", r.Out)
	}
	for _, script := range []string{
		"ls .wholefs", "stat .wholefs", "cat .wholefs/journal/MANIFEST", "mkdir .wholefs", "touch .wholefs", "echo x > .wholefs",
		"ln -s /etc .wholefs", "touch x; mv x .wholefs", "touch x; ln x .wholefs", "rm -rf .wholefs/staging; ls .wholefs/staging", "mv .wholefs y", "rmdir .wholefs",
		"echo x > .wholefs/staging/x", "cd .wholefs",
	} {
		if r := harness.Shell(m.Dir, script).Run(); r.OK() || r.TimedOut {
			t.Errorf("%s is allowed: %v", script, r)
		}
	}
	// Below the top it is a name like any other.
	harness.Must(t, harness.Shell(m.Dir, "mkdir -p d/.wholefs; echo x > d/.wholefs/f; cat d/.wholefs/f"))
	if _, err := os.Stat(m.Out("d/.wholefs/f")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.Out(harness.Hidden)); err != nil {
		t.Errorf("it did not survive: %v", err)
	}
}

// tail -f follows a file over several publishes.
func TestTailFollows(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	harness.Must(t, harness.Shell(m.Dir, "echo first > f"))
	out := filepath.Join(harness.TempDir(t), "out")
	harness.Background(t, harness.Shell(m.Dir, "exec tail -n +1 -s 0.1 -f f > "+out))
	expect := func(want string) {
		t.Helper()
		harness.Eventually(t, 10e9, "tail says "+want, func() bool {
			b, _ := os.ReadFile(out)
			return string(b) == want
		})
	}
	expect("first\n")
	harness.Must(t, harness.Shell(m.Dir, "echo second >> f"))
	expect("first\nsecond\n")
	harness.Must(t, harness.Shell(m.Dir, "(echo third; sleep 0.5; echo fourth) >> f"))
	expect("first\nsecond\nthird\nfourth\n")
}

// No symlink leads out of the store on wholefs's side: what a link means is
// for the caller's kernel to resolve (W10).
func TestSymlinksResolveAtTheCaller(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	outside := harness.TempDir(t)
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A directory of the store is replaced by a link behind the mount's back.
	harness.Must(t, harness.Shell(m.Dir, "mkdir d; echo inside > d/secret; cat d/secret"))
	f, err := os.Open(m.In("d"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	harness.Must(t, harness.Shell(m.Store, "mv d away; ln -s "+outside+" d"))
	r := harness.Shell(m.Dir, "cd d && cat secret && echo overwritten > planted").Run()
	b, _ := os.ReadFile(filepath.Join(outside, "secret"))
	if string(b) != "secret" {
		t.Errorf("%v changed a file outside: %q", r, b)
	}
}
