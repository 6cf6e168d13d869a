// Package pack reads and writes the plain building blocks of the money side's
// own formats: varints, 128-bit integers, strings, and items with a length in
// front, whose unknown ends a reader steps over. A later version of a format
// may add to the end of an item and nothing else.
package pack

import (
	"encoding/binary"
	"errors"

	"github.com/covey-platform/covey/internal/unit"
)

// ErrBroken says that bytes are not what was written.
var ErrBroken = errors.New("the bytes are cut short or damaged")

// AppendString appends s with its length in front.
func AppendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// AppendItem appends one item with its length in front.
func AppendItem(b, item []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(item)))
	return append(b, item...)
}

// A Reader reads from bytes that it does not change. After the first thing
// that cannot be read, everything reads as zero and Err says so.
type Reader struct {
	rest   []byte
	broken bool
}

// NewReader reads b from its start.
func NewReader(b []byte) Reader { return Reader{rest: b} }

// Err returns [ErrBroken] if something could not be read.
func (r *Reader) Err() error {
	if r.broken {
		return ErrBroken
	}
	return nil
}

// More reports whether there are bytes left.
func (r *Reader) More() bool { return len(r.rest) > 0 && !r.broken }

// Len returns the number of bytes left: no list still to come is longer.
func (r *Reader) Len() int { return len(r.rest) }

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if !r.More() {
		r.broken = true
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

// Bool reads a byte that is 0 or 1.
func (r *Reader) Bool() bool {
	c := r.Byte()
	r.broken = r.broken || c > 1
	return c == 1 && !r.broken
}

// Uint reads an unsigned varint.
func (r *Reader) Uint() uint64 {
	x, n := binary.Uvarint(r.rest)
	if !r.took(n) {
		return 0
	}
	return x
}

// Int reads a signed varint.
func (r *Reader) Int() int64 {
	x, n := binary.Varint(r.rest)
	if !r.took(n) {
		return 0
	}
	return x
}

// Int128 reads what [unit.AppendInt128] wrote.
func (r *Reader) Int128() unit.Int128 {
	x, n := unit.ReadInt128(r.rest)
	if !r.took(n) {
		return unit.Int128{}
	}
	return x
}

// Count reads the length of a list of things of at least one byte each.
func (r *Reader) Count() int {
	n := r.Uint()
	if n > uint64(len(r.rest)) {
		r.broken = true
		return 0
	}
	return int(n)
}

// Bytes reads bytes with their length in front. They are shared with the source.
func (r *Reader) Bytes() []byte {
	n := r.Count()
	if r.broken {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// String reads a string with its length in front.
func (r *Reader) String() string { return string(r.Bytes()) }

// Item returns a reader of the next item.
func (r *Reader) Item() Reader {
	b := r.Bytes()
	return Reader{rest: b, broken: r.broken}
}

// Join takes over what went wrong inside an item.
func (r *Reader) Join(item *Reader) { r.broken = r.broken || item.broken }

func (r *Reader) took(n int) bool {
	if n <= 0 || r.broken {
		r.broken = true
		return false
	}
	r.rest = r.rest[n:]
	return true
}
