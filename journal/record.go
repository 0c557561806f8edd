package journal

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
	"unicode/utf8"
)

// FormatVersion is the version of the journal's layout, as docs/FORMAT.md
// describes it. It stands in Badger's MANIFEST and in the format record, and
// rises with each change that an older wholefs would misread.
const FormatVersion = 1

// recordVersion is the version of the records that this package writes.
const recordVersion = 1

// The kinds of records: the second byte of each value and, but for the
// format, the byte after the session's ID in each key.
const (
	kindFormat  = 0
	kindSession = 1
	kindExtents = 2
	kindPart    = 3
)

var kindNames = [...]string{"format", "session", "extents", "part"}

const (
	headerLen = 6 // version, kind, CRC32C
	maxToken  = 64 << 10
	// inlineExtents is how many extents a session record holds itself.
	inlineExtents = 512
	// chunkExtents is how many extents one extents record holds.
	chunkExtents = 2048
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errShort    = errors.New("record is cut short")
	errChecksum = errors.New("checksum does not match")
)

// versionError is a record of a version that is not known.
type versionError struct {
	kind    string
	version int
}

func (e *versionError) Error() string {
	return fmt.Sprintf("%s record of version %d", e.kind, e.version)
}

// seal puts the header before a payload that was appended to newRecord.
func seal(rec []byte) []byte {
	binary.BigEndian.PutUint32(rec[2:], crc32.Checksum(rec[headerLen:], castagnoli))
	return rec
}

func newRecord(kind byte, size int) []byte {
	return append(make([]byte, 0, headerLen+size), recordVersion, kind, 0, 0, 0, 0)
}

// open checks a record's header and returns its payload.
func open(rec []byte, kind byte) ([]byte, error) {
	if len(rec) < headerLen {
		return nil, errShort
	}
	if rec[0] > recordVersion {
		return nil, &versionError{kind: kindNames[kind], version: int(rec[0])}
	}
	if rec[0] != recordVersion || rec[1] != kind {
		return nil, fmt.Errorf("record has version %d and kind %d, want %d and %d", rec[0], rec[1], recordVersion, kind)
	}
	if crc32.Checksum(rec[headerLen:], castagnoli) != binary.BigEndian.Uint32(rec[2:]) {
		return nil, errChecksum
	}
	return rec[headerLen:], nil
}

// text is a string of any bytes in JSON: readable if it is UTF-8, else an
// object that holds it in base64. (Plain JSON would change the bytes.)
type text string

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return marshal(string(t))
	}
	return json.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(t))})
}

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var v struct {
			Base64 []byte `json:"base64"`
		}
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		*t = text(v.Base64)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*t = text(s)
	return nil
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

type formatJSON struct {
	Format int `json:"format"`
}

func encodeFormat(version int) []byte {
	p, err := marshal(formatJSON{version})
	if err != nil {
		panic(err) // an int is always JSON
	}
	return seal(append(newRecord(kindFormat, len(p)), p...))
}

func decodeFormat(rec []byte) (int, error) {
	p, err := open(rec, kindFormat)
	if err != nil {
		return 0, err
	}
	var f formatJSON
	if err := json.Unmarshal(p, &f); err != nil {
		return 0, err
	}
	return f.Format, nil
}

// spill says that a session's extents stand in records of their own.
type spill struct {
	Gen     uint64 `json:"gen"`     // in the keys of these records
	Records int    `json:"records"` // how many there are
}

type sessionJSON struct {
	ID       text      `json:"id"`
	Path     text      `json:"path"`
	State    State     `json:"state"`
	Reason   text      `json:"reason,omitempty"`
	Killed   bool      `json:"killed,omitempty"`
	PartSize int64     `json:"part_size"`
	Size     int64     `json:"size"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
	UploadID text      `json:"upload_id,omitempty"`
	Staging  text      `json:"staging"`
	Exact    bool      `json:"exact,omitempty"`
	Replaces bool      `json:"replaces,omitempty"`
	Holes    []Extent  `json:"holes,omitempty"`
	Written  []Extent  `json:"written,omitempty"`
	Spill    *spill    `json:"extents,omitempty"`
}

// encodeSession returns the record of s. With sp, the extents are left out:
// they stand in the records that encodeExtents made.
func encodeSession(s *Session, sp *spill) ([]byte, error) {
	j := sessionJSON{
		ID: text(s.ID), Path: text(s.Path), State: s.State, Reason: text(s.Reason), Killed: s.Killed,
		PartSize: s.PartSize, Size: s.Size, Created: s.Created.UTC(), Updated: s.Updated.UTC(),
		UploadID: text(s.UploadID), Staging: text(s.StagingName), Exact: s.Exact, Replaces: s.Replaces, Spill: sp,
	}
	if sp == nil {
		j.Holes, j.Written = s.Holes, s.Written
	}
	p, err := marshal(j)
	if err != nil {
		return nil, fmt.Errorf("%w: session %s: %w", ErrInvalid, s.ID, err)
	}
	if len(p) > maxRecord {
		return nil, fmt.Errorf("%w: session %s takes %d bytes, at most %d are kept", ErrInvalid, s.ID, len(p), maxRecord)
	}
	return seal(append(newRecord(kindSession, len(p)), p...)), nil
}

// decodeSession reads a session record. A spill that is not nil says where
// its extents are.
func decodeSession(rec []byte) (Session, *spill, error) {
	p, err := open(rec, kindSession)
	if err != nil {
		return Session{}, nil, err
	}
	var j sessionJSON
	if err := json.Unmarshal(p, &j); err != nil {
		return Session{}, nil, err
	}
	s := Session{
		ID: string(j.ID), Path: string(j.Path), State: j.State, Reason: string(j.Reason), Killed: j.Killed,
		PartSize: j.PartSize, Size: j.Size, Created: j.Created, Updated: j.Updated,
		UploadID: string(j.UploadID), StagingName: string(j.Staging), Exact: j.Exact, Replaces: j.Replaces,
		Holes: j.Holes, Written: j.Written,
	}
	if len(s.Holes) == 0 {
		s.Holes = nil
	}
	if len(s.Written) == 0 {
		s.Written = nil
	}
	if err := s.check(); err != nil {
		return Session{}, nil, err
	}
	if j.Spill != nil && (j.Spill.Records <= 0 || j.Holes != nil || j.Written != nil) {
		return Session{}, nil, fmt.Errorf("session names %d extents records and holds %d extents", j.Spill.Records,
			len(j.Holes)+len(j.Written))
	}
	return s, j.Spill, nil
}

// The lists that an extents record can belong to.
const listHoles, listWritten = 0, 1

// encodeExtents returns the records that hold the extents of s.
func encodeExtents(s *Session) [][]byte {
	var recs [][]byte
	for which, list := range [][]Extent{listHoles: s.Holes, listWritten: s.Written} {
		for len(list) > 0 {
			n := min(len(list), chunkExtents)
			rec := append(newRecord(kindExtents, 1+n*8), byte(which))
			var end int64
			for _, e := range list[:n] {
				rec = binary.AppendUvarint(rec, uint64(e[0]-end))
				rec = binary.AppendUvarint(rec, uint64(e[1]-e[0]))
				end = e[1]
			}
			recs = append(recs, seal(rec))
			list = list[n:]
		}
	}
	return recs
}

// decodeExtents appends what an extents record holds to the lists of s.
func decodeExtents(rec []byte, s *Session) error {
	p, err := open(rec, kindExtents)
	if err != nil {
		return err
	}
	if len(p) < 1 || p[0] > listWritten {
		return errors.New("extents of no known list")
	}
	list := &s.Holes
	if p[0] == listWritten {
		list = &s.Written
	}
	p = p[1:]
	var end int64
	for len(p) > 0 {
		var gap, size int64
		if gap, p, err = uvarint(p); err != nil {
			return err
		}
		if size, p, err = uvarint(p); err != nil {
			return err
		}
		off := end + gap
		if end = off + size; size == 0 || off < 0 || end < off {
			return errors.New("extents run over")
		}
		*list = append(*list, Extent{off, end})
	}
	return nil
}

// encodePart returns the record of p; its number stands in the key.
func encodePart(p *Part) []byte {
	rec := newRecord(kindPart, 4+binary.MaxVarintLen64+len(p.Token))
	rec = binary.BigEndian.AppendUint32(rec, p.CRC)
	rec = binary.AppendUvarint(rec, uint64(p.Size))
	return seal(append(rec, p.Token...))
}

func decodePart(rec []byte, number int64) (Part, error) {
	b, err := open(rec, kindPart)
	if err != nil {
		return Part{}, err
	}
	if len(b) < 5 {
		return Part{}, errShort
	}
	p := Part{Number: number, CRC: binary.BigEndian.Uint32(b)}
	if p.Size, b, err = uvarint(b[4:]); err != nil {
		return Part{}, err
	}
	p.Token = string(b)
	return p, nil
}

// uvarint reads one number that fits int64 from the front of b.
func uvarint(b []byte) (int64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || int64(v) < 0 {
		return 0, nil, errors.New("number is cut short or too large")
	}
	return int64(v), b[n:], nil
}
