package session

import (
	"cmp"
	"path"
	"slices"
	"time"

	"github.com/wholefs/wholefs/chunker"
)

// Info tells people and programs about one session. Sizes are in bytes.
type Info struct {
	ID     string `json:"id"`
	Path   string `json:"path"`
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"`
	Error  string `json:"error,omitempty"`
	Size   int64  `json:"size"`
	// Parts is how many parts the file has now, PartsComplete how many of
	// them the journal vouches for.
	Parts         int64            `json:"parts"`
	PartsComplete int64            `json:"partsComplete"`
	PartSize      int64            `json:"partSize"`
	Writers       int              `json:"writers"`
	Created       time.Time        `json:"created"`
	Updated       time.Time        `json:"updated"`
	Expires       time.Time        `json:"expires,omitzero"`
	Missing       []chunker.Extent `json:"missing,omitempty"`
}

// maxMissingShown bounds Info.Missing: whoever has more looks at the first.
const maxMissingShown = 16

// Info tells about the session as it is now.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := Info{
		ID: s.id, Path: s.Path(), State: s.state, Reason: s.reason, Size: s.size,
		Parts: s.e.o.Layout.Count(s.size), PartsComplete: int64(len(s.parts)),
		PartSize: s.e.o.Layout.PartSize(), Writers: len(s.writers),
		Created: s.created, Updated: s.updated,
	}
	if s.err != nil {
		i.Error = s.err.Error()
	}
	if s.cover != nil && s.pending == 0 {
		i.Missing = s.cover.Missing()
		i.Missing = i.Missing[:min(len(i.Missing), maxMissingShown)]
	}
	if s.state == StateHeld && s.e.o.HoldTTL > 0 {
		i.Expires = s.updated.Add(s.e.o.HoldTTL)
	}
	return i
}

// byAge returns the active sessions, the oldest first.
func (e *Engine) byAge() []*Session {
	all := slices.DeleteFunc(e.all(), func(s *Session) bool { return !s.Active() })
	slices.SortFunc(all, func(a, b *Session) int { return cmp.Compare(a.ID(), b.ID()) })
	return all
}

// List tells about the active sessions, the oldest first.
func (e *Engine) List() []Info {
	var list []Info
	for _, s := range e.byAge() {
		list = append(list, s.Info())
	}
	return list
}

// Find tells about the session with the given id, unambiguous prefix of an id
// (at least 4 characters), or path. It answers ENOENT if there is none.
func (e *Engine) Find(idOrPath string) (Info, error) {
	s, err := e.find(idOrPath)
	if err != nil {
		return Info{}, err
	}
	return s.Info(), nil
}

// Counts tells how many sessions are open, publishing and held.
func (e *Engine) Counts() map[State]int {
	counts := map[State]int{StateOpen: 0, StatePublishing: 0, StateHeld: 0}
	for _, s := range e.all() {
		if st := s.State(); st.active() {
			counts[st]++
		}
	}
	return counts
}

// OldestAge tells how long ago the oldest active session began; 0 without one.
func (e *Engine) OldestAge() time.Duration {
	var oldest time.Time
	for _, s := range e.all() {
		s.mu.Lock()
		if s.state.active() && (oldest.IsZero() || s.created.Before(oldest)) {
			oldest = s.created
		}
		s.mu.Unlock()
	}
	if oldest.IsZero() {
		return 0
	}
	return e.o.Now().Sub(oldest)
}

// baseName returns the last component of a store path.
func baseName(p string) string { return path.Base(p) }
