package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strconv"
)

// Badger's log of a memtable, as far as it must be known to judge it:
//
//	header of 20 bytes, then entries, then zeros
//	entry: meta(1) user(1) key length, value length, expiry (uvarints) key value CRC32C(4)
//
// Entries of one transaction carry the transaction's bit and its version at
// the end of their keys; an entry with the end bit, whose value is the
// version in digits, makes them count.
const (
	logHeader = 20
	bitTxn    = 1 << 6
	bitTxnEnd = 1 << 7
	maxLogKey = 1 << 16
)

var txnEndKey = []byte("!badger!txn")

// logScan is what scanLog finds.
type logScan struct {
	end  int // offset behind the last transaction that Badger will read
	tail int // bytes from there to the last that is not zero
	lost int // whole transactions that end in the tail
}

// scanLog reads a log as Badger does, and then looks at what Badger would
// drop without a word.
func scanLog(data []byte) logScan {
	s := logScan{end: min(logHeader, len(data))}
	var txn uint64
	for off := s.end; ; {
		e, ok := readLogEntry(data[off:])
		if !ok {
			break
		}
		off += e.size
		switch {
		case e.meta&bitTxn != 0:
			if txn != 0 && txn != e.version {
				ok = false
			}
			txn = e.version
		case e.meta&bitTxnEnd != 0:
			ok = txn != 0 && string(e.value) == strconv.FormatUint(txn, 10)
			txn = 0
			if ok {
				s.end = off
			}
		default:
			if ok = txn == 0; ok {
				s.end = off
			}
		}
		if !ok {
			break
		}
	}
	tail := bytes.TrimRight(data[s.end:], "\x00")
	s.tail = len(tail)
	s.lost = countTxns(tail)
	return s
}

// countTxns counts the ends of transactions in b, wherever they stand.
func countTxns(b []byte) (n int) {
	const keyAt = 5 // an end's lengths and expiry take one byte each
	for i := 0; ; {
		k := bytes.Index(b[i:], txnEndKey)
		if k < 0 {
			return n
		}
		if i += k; i >= keyAt {
			if e, ok := readLogEntry(b[i-keyAt:]); ok && e.meta&bitTxnEnd != 0 {
				n++
			}
		}
		i += len(txnEndKey)
	}
}

type logEntry struct {
	meta    byte
	version uint64
	value   []byte
	size    int
}

func readLogEntry(b []byte) (logEntry, bool) {
	if len(b) < 2 {
		return logEntry{}, false
	}
	e := logEntry{meta: b[0]}
	off := 2
	var lens [3]uint64 // key, value, expiry
	for i := range lens {
		v, n := binary.Uvarint(b[off:])
		if n <= 0 {
			return logEntry{}, false
		}
		lens[i] = v
		off += n
	}
	klen, vlen := lens[0], lens[1]
	room := uint64(len(b) - off)
	if klen < 8 || klen > maxLogKey || klen > room || vlen > room-klen || room-klen-vlen < crc32.Size {
		return logEntry{}, false
	}
	end := off + int(klen+vlen)
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return logEntry{}, false
	}
	key := b[off : off+int(klen)]
	e.version = ^binary.BigEndian.Uint64(key[klen-8:]) // Badger keeps it inverted, newest first
	e.value = b[off+int(klen) : end]
	e.size = end + crc32.Size
	return e, true
}
