package harness

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Hidden is the directory inside a store that wholefs keeps for itself.
const Hidden = ".wholefs"

// Session is one line of "wholefs session ls --json".
type Session struct {
	ID            string    `json:"id"`
	Path          string    `json:"path"`
	State         string    `json:"state"`
	Reason        string    `json:"reason"`
	Size          int64     `json:"size"`
	Parts         int64     `json:"parts"`
	PartsComplete int64     `json:"parts_complete"`
	PartSize      int64     `json:"part_size"`
	Writers       int       `json:"writers"`
	Error         string    `json:"error"`
	Created       time.Time `json:"created"`
	Missing       []Extent  `json:"missing"`
}

// Extent is a byte range, its end not included.
type Extent struct {
	Off int64 `json:"off"`
	End int64 `json:"end"`
}

// ListSessions asks the daemon for its sessions.
func (m *Mnt) ListSessions() ([]Session, error) {
	r := m.Wholefs("session", "ls", "--json", m.Dir)
	if !r.OK() {
		return nil, fmt.Errorf("%v", r)
	}
	var list []Session
	if err := json.Unmarshal([]byte(r.Out), &list); err != nil {
		return nil, fmt.Errorf("session ls --json: %w in %s", err, clip(r.Out))
	}
	return list, nil
}

// Sessions is ListSessions for tests.
func (m *Mnt) Sessions(t testing.TB) []Session {
	t.Helper()
	list, err := m.ListSessions()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// SessionAt is the session of one path, which must exist.
func (m *Mnt) SessionAt(t testing.TB, path string) Session {
	t.Helper()
	for _, s := range m.Sessions(t) {
		if s.Path == path {
			return s
		}
	}
	t.Fatalf("no session at %q in %+v", path, m.Sessions(t))
	return Session{}
}

// HeldAt waits until the session at path is held and returns it: the kernel
// sends the last release of a killed process after it is gone.
func (m *Mnt) HeldAt(t testing.TB, path string) Session {
	t.Helper()
	var found Session
	Eventually(t, 10*time.Second, "a held session at "+path, func() bool {
		for _, s := range m.Sessions(t) {
			if s.Path == path && s.State == "held" {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// NoSessions waits until nothing is open, publishing or held.
func (m *Mnt) NoSessions(t testing.TB) {
	t.Helper()
	var left []Session
	ok := Poll(10*time.Second, func() bool {
		left = m.Sessions(t)
		return len(left) == 0
	})
	if !ok {
		t.Fatalf("sessions left: %+v", left)
	}
}

// Visible lists the store's top as an observer outside sees it, without the
// directory that wholefs keeps for itself.
func (m *Mnt) Visible(t testing.TB) []string {
	t.Helper()
	ents, err := os.ReadDir(m.Store)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range ents {
		if e.Name() != Hidden {
			names = append(names, e.Name())
		}
	}
	return names
}

// StagingFiles lists the staging files of a store. Staging files are the
// regular files of the hidden directory whose directory is called staging.
func (m *Mnt) StagingFiles(t testing.TB) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(m.Store, Hidden), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Base(filepath.Dir(p)) == "staging" {
			files = append(files, filepath.Base(p))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// NoStaging waits until no staging file is left.
func (m *Mnt) NoStaging(t testing.TB) {
	t.Helper()
	var left []string
	if !Poll(10*time.Second, func() bool { left = m.StagingFiles(t); return len(left) == 0 }) {
		t.Fatalf("staging files left: %v", left)
	}
}
