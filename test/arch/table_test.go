// Package arch keeps the shape of the house: who may import whom, that every
// package says what it is, and that files stay readable. It looks at the
// source tree, so run it with -count=1: a cached result would miss a change.
package arch

// imports is the table: what each package may import from this module, in
// its non-test files. What is not listed is forbidden. An entry that ends in
// "/..." stands for the packages below it. cmd and test may import all, and
// nobody imports them.
var imports = map[string][]string{
	"chunker":   {},
	"store":     {},
	"telemetry": {},

	"internal/durable":   {},
	"internal/fdnode":    {"store"},
	"internal/procstate": {},

	"staging": {"chunker", "internal/..."},
	"journal": {"chunker", "store", "internal/..."},

	"store/localdir":  {"store", "internal/..."},
	"store/storetest": {"store"},

	"session": {"chunker", "staging", "journal", "store", "internal/..."},

	"fusefs":  {"session", "store", "staging", "chunker", "internal/..."},
	"control": {"session"},

	"cmd/...":  {"..."},
	"test/...": {"..."},
}

// owners are the dependencies that one package has to itself, so that the
// rest of the house does not come to depend on them. cmd wires things
// together and may use them too.
var owners = map[string][]string{
	"github.com/dgraph-io/badger/":    {"journal"},
	"github.com/hanwen/go-fuse/":      {"fusefs", "test/..."},
	"github.com/prometheus/":          {"telemetry", "cmd/..."},
	"github.com/spf13/cobra":          {"cmd/..."},
	"github.com/coreos/go-systemd/":   {"cmd/..."},
	"github.com/stretchr/testify":     {"store/storetest"},
	"go.uber.org/goleak":              {},
	"pgregory.net/rapid":              {},
	"github.com/wholefs/wholefs/cmd":  {},
	"github.com/wholefs/wholefs/test": {"test/..."},
}

// pure packages compute and nothing else: no files, network, clock or
// processes.
var pure = map[string][]string{
	"chunker": {"os", "net", "time", "syscall", "os/exec", "io/fs", "golang.org/x/sys/unix"},
}

// longFiles are the files of more than maxLines lines, each with the reason.
var longFiles = map[string]string{}

const maxLines = 500

// skips are the files with tests that skip themselves, each with the reason
// why that is not in silence: on the machine that "make test" asks for, none
// of these is skipped.
var skips = map[string]string{
	"fusefs/attr_test.go":            "without the right to set file capabilities, which root has",
	"internal/fdnode/fdnode_test.go": "without a tmpfs at /dev/shm that takes extended attributes",
	"journal/writer_test.go":         "on a filesystem without fallocate, and where tmpfs cannot be mounted",
	"staging/clone_test.go":          "without a tmpfs at /dev/shm",
	"store/localdir/create_test.go":  "on a filesystem without ACLs, and where devices cannot be made",
	"store/localdir/open_test.go":    "where filesystems cannot be mounted, which root can",
	"store/localdir/suite_test.go":   "without a tmpfs at /dev/shm",
	"store/storetest/storetest.go":   "for features that a store says it does not have",
}
