package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// All keys of a session share a prefix and stand together, its session record
// first: a reader sees one session after another.
//
//	"format"
//	"s/" id NUL 1                       session
//	"s/" id NUL 2 generation(8) n(4)    extents
//	"s/" id NUL 3 number(8)             part
var (
	formatKey     = []byte("format")
	sessionPrefix = []byte("s/")
)

// prefix is what all keys of the session begin with.
func prefix(id string, extra int) []byte {
	k := make([]byte, 0, len(sessionPrefix)+len(id)+2+extra)
	k = append(k, sessionPrefix...)
	k = append(k, id...)
	return append(k, 0)
}

func sessionKey(id string) []byte { return append(prefix(id, 0), kindSession) }

func extentsKey(id string, gen uint64, n int) []byte {
	k := append(prefix(id, 12), kindExtents)
	k = binary.BigEndian.AppendUint64(k, gen)
	return binary.BigEndian.AppendUint32(k, uint32(n))
}

func partKey(id string, number int64) []byte {
	return binary.BigEndian.AppendUint64(append(prefix(id, 8), kindPart), uint64(number))
}

// keyParts is a key taken apart.
type keyParts struct {
	id     string
	kind   byte
	number int64  // of a part
	gen    uint64 // of extents
	n      int    // of extents
}

func parseKey(k []byte) (keyParts, error) {
	rest, ok := bytes.CutPrefix(k, sessionPrefix)
	end := bytes.IndexByte(rest, 0)
	if !ok || end <= 0 || end+1 >= len(rest) {
		return keyParts{}, errors.New("key of no known form")
	}
	p := keyParts{id: string(rest[:end]), kind: rest[end+1]}
	tail := rest[end+2:]
	switch {
	case p.kind == kindSession && len(tail) == 0:
	case p.kind == kindExtents && len(tail) == 12:
		p.gen = binary.BigEndian.Uint64(tail)
		p.n = int(binary.BigEndian.Uint32(tail[8:]))
	case p.kind == kindPart && len(tail) == 8 && tail[0] < 0x80:
		p.number = int64(binary.BigEndian.Uint64(tail))
	default:
		return keyParts{}, fmt.Errorf("key of kind %d with %d more bytes", p.kind, len(tail))
	}
	return p, nil
}

// keyString shows a key to people.
func keyString(k []byte) string {
	p, err := parseKey(k)
	switch {
	case err != nil:
		return fmt.Sprintf("%q", k)
	case p.kind == kindPart:
		return fmt.Sprintf("part %d of session %s", p.number, p.id)
	case p.kind == kindExtents:
		return fmt.Sprintf("extents %d of session %s", p.n, p.id)
	}
	return "session " + p.id
}
