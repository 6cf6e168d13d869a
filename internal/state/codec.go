package state

import (
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
)

// Format is the version of rows and record blocks that this program writes,
// as their first byte. It reads the formats from one back to one ahead.
//
// A format may add fields, kinds of records and tables to the one before it,
// and nothing else: a field keeps its number, its type and its meaning for
// ever, and a message inside a row gets no new fields. That is what lets a
// reader keep what it does not know: a row that is decoded and encoded again
// still holds every field of a newer writer.
const Format = 1 + format.Ahead

// readable reports what is wrong with data of format v, if anything.
func readable(v byte) error {
	if v < max(1, Format-1) || v > Format+1 {
		return fault.Internal.Errorf("it is of format %d; want %d to %d", v, max(1, Format-1), Format+1)
	}
	return nil
}

// A writer appends the fields of a message. Zero values are left out.
type writer []byte

// added is a field that only the version ahead knows.
const added protowire.Number = 2000

func newWriter(size int) writer {
	w := append(make(writer, 0, size), Format)
	w.uint(added, format.Ahead)
	return w
}

func (w *writer) uint(n protowire.Number, v uint64) {
	if v != 0 {
		*w = protowire.AppendVarint(protowire.AppendTag(*w, n, protowire.VarintType), v)
	}
}

// int is for numbers that are seldom negative: those take ten bytes.
func (w *writer) int(n protowire.Number, v int64) { w.uint(n, uint64(v)) }

func (w *writer) flag(n protowire.Number, v bool) {
	if v {
		w.uint(n, 1)
	}
}

func (w *writer) str(n protowire.Number, s string) {
	if s != "" {
		w.must(n, s)
	}
}

// must appends s even when it is empty.
func (w *writer) must(n protowire.Number, s string) {
	*w = protowire.AppendString(protowire.AppendTag(*w, n, protowire.BytesType), s)
}

func (w *writer) bytes(n protowire.Number, b []byte) {
	*w = protowire.AppendBytes(protowire.AppendTag(*w, n, protowire.BytesType), b)
}

// raw appends fields that are encoded already.
func (w *writer) raw(fields string) { *w = append(*w, fields...) }

// A reader walks over the fields of a message. After next has returned false,
// err is nil if the message was whole and every value fitted its field.
type reader struct {
	rest    []byte
	num     protowire.Number
	typ     protowire.Type
	value   uint64 // of a varint
	data    []byte // of bytes
	field   []byte // the field as it came
	unknown []byte
	shared  *texts
	err     error
}

// newReader returns a reader of a row's value, or of a block.
func newReader(b []byte, shared *texts) *reader {
	r := &reader{shared: shared} // small enough to be inlined: then it is no allocation
	r.begin(b)
	return r
}

// begin reads the format byte.
func (r *reader) begin(b []byte) {
	if len(b) == 0 {
		r.err = fault.Internal.Errorf("it is empty; want a format byte first")
		return
	}
	r.rest, r.err = b[1:], readable(b[0])
}

func (r *reader) next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(r.rest)
	if n < 0 {
		return r.fail("a tag is broken: %w", protowire.ParseError(n))
	}
	m := 0
	r.value, r.data = 0, nil
	switch typ {
	case protowire.VarintType:
		r.value, m = protowire.ConsumeVarint(r.rest[n:])
	case protowire.BytesType:
		r.data, m = protowire.ConsumeBytes(r.rest[n:])
	default:
		m = protowire.ConsumeFieldValue(num, typ, r.rest[n:])
	}
	if m < 0 {
		return r.fail("field %d is broken: %w", num, protowire.ParseError(m))
	}
	r.num, r.typ, r.field, r.rest = num, typ, r.rest[:n+m], r.rest[n+m:]
	return true
}

// fail notes the first error. It returns false.
func (r *reader) fail(format string, args ...any) bool {
	if r.err == nil {
		r.err = fault.Internal.Errorf(format, args...)
	}
	return false
}

// is reports whether the field has type t, and fails if not.
func (r *reader) is(t protowire.Type) bool {
	return r.typ == t || r.fail("field %d has wire type %d; want %d", r.num, r.typ, t)
}

// keep puts a field aside that this format does not know.
func (r *reader) keep() {
	if format.Ahead == 0 || r.num != added {
		r.unknown = append(r.unknown, r.field...)
	}
}

// closed refuses a field that a closed message does not have.
func (r *reader) closed() {
	r.fail("field %d does not exist in a message without further fields", r.num)
}

func (r *reader) uint(most uint64) uint64 {
	if !r.is(protowire.VarintType) {
		return 0
	}
	if r.value > most {
		r.fail("field %d is %d; want at most %d", r.num, r.value, most)
		return 0
	}
	return r.value
}

func (r *reader) int() int64 { return int64(r.uint(math.MaxUint64)) }

func (r *reader) int32() int32 {
	v := r.int()
	if v != int64(int32(v)) {
		r.fail("field %d is %d; want a number of 32 bits", r.num, v)
		return 0
	}
	return int32(v)
}

func (r *reader) flag() bool { return r.uint(1) == 1 }

func (r *reader) bytes() []byte {
	if !r.is(protowire.BytesType) {
		return nil
	}
	return r.data
}

func (r *reader) str() string { return string(r.bytes()) }

// share is str for values that many rows have in common.
func (r *reader) share() string { return r.shared.text(r.bytes()) }

// texts holds one copy of each string there is. A nil one holds none.
type texts struct {
	own  map[string]string
	last string // the key of a job: most rows have that of the row before
	base *texts // looked into first, and not changed; nil: there is none
}

func newTexts(base *texts) *texts { return &texts{own: make(map[string]string), base: base} }

func (t *texts) text(b []byte) string {
	switch {
	case len(b) == 0:
		return ""
	case t == nil:
		return string(b)
	}
	if t.base != nil {
		if s, ok := t.base.own[string(b)]; ok {
			return s
		}
	}
	s, ok := t.own[string(b)]
	if !ok {
		s = string(b)
		t.own[s] = s
	}
	return s
}

// job returns the one copy of a job's key.
func (t *texts) job(k string) string {
	switch {
	case t == nil:
		return strings.Clone(k)
	case k == t.last:
		return t.last
	}
	s, ok := "", false
	if t.base != nil {
		s, ok = t.base.own[k]
	}
	if !ok {
		s, ok = t.own[k]
	}
	if !ok {
		s = strings.Clone(k)
		t.own[s] = s
	}
	t.last = s
	return s
}

// packed returns a reader of the varints in a field.
func (r *reader) packed() *varints { return &varints{rest: r.bytes(), of: r} }

// A varints walks over packed varints.
type varints struct {
	rest []byte
	of   *reader
}

func (p *varints) more() bool { return p.of.err == nil && len(p.rest) > 0 }

func (p *varints) uint(most uint64) uint64 {
	v, n := protowire.ConsumeVarint(p.rest)
	if n < 0 {
		p.rest = nil
		p.of.fail("field %d holds a broken number: %w", p.of.num, protowire.ParseError(n))
		return 0
	}
	p.rest = p.rest[n:]
	if v > most {
		p.of.fail("field %d holds %d; want at most %d", p.of.num, v, most)
		return 0
	}
	return v
}

func (p *varints) int32() int32 {
	v := int64(p.uint(math.MaxUint64))
	if v != int64(int32(v)) {
		p.of.fail("field %d holds %d; want a number of 32 bits", p.of.num, v)
		return 0
	}
	return int32(v)
}
