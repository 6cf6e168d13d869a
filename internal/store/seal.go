package store

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/covey-platform/covey/internal/fault"
)

// SQLite notices a damaged page of its own only if the damage hits the
// structure, so every value ends with a checksum of its key and itself.
const sealSize = 4

// sealer appends sealed values to one buffer, so that a commit allocates once.
type sealer struct {
	table *crc32.Table
	buf   []byte
}

func newSealer() *sealer { return &sealer{table: crc32.MakeTable(crc32.Castagnoli)} }

// reset makes room for size bytes: until then no slice of the buffer moves.
func (s *sealer) reset(size int) {
	if cap(s.buf) < size {
		s.buf = make([]byte, 0, size+size/4)
	}
	s.buf = s.buf[:0]
}

// key appends k and returns it.
func (s *sealer) key(k string) []byte {
	n := len(s.buf)
	s.buf = append(s.buf, k...)
	return s.buf[n:len(s.buf):len(s.buf)]
}

// seal appends value and its checksum and returns both.
func (s *sealer) seal(key, value []byte) []byte {
	n := len(s.buf)
	sum := crc32.Update(crc32.Checksum(key, s.table), s.table, value)
	s.buf = binary.LittleEndian.AppendUint32(append(s.buf, value...), sum)
	return s.buf[n:len(s.buf):len(s.buf)]
}

// open returns the value that was sealed under key. It shares its memory.
func (s *sealer) open(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - sealSize
	if n < 0 {
		return nil, fault.Internal.Errorf("the value has %d bytes, and no checksum", len(sealed))
	}
	value := sealed[:n:n]
	sum := crc32.Update(crc32.Checksum(key, s.table), s.table, value)
	if sum != binary.LittleEndian.Uint32(sealed[n:]) {
		return nil, fault.Internal.Errorf("the value does not match its checksum")
	}
	return value, nil
}
