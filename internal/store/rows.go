package store

import (
	"encoding/binary"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// rowsSize returns how many bytes appendRows adds at most.
func rowsSize(rows []state.Row) (size int) {
	for i := range rows {
		size += 1 + 2*binary.MaxVarintLen32 + len(rows[i].Key) + len(rows[i].Value)
	}
	return size
}

// appendRows writes rows down: the table, the key, and the length of the value
// and one more, or 0 if the row is gone.
func appendRows(out []byte, rows []state.Row) []byte {
	for i := range rows {
		r := &rows[i]
		out = append(out, byte(r.Table))
		out = binary.AppendUvarint(out, uint64(len(r.Key)))
		out = append(out, r.Key...)
		if r.Value == nil {
			out = append(out, 0)
			continue
		}
		out = binary.AppendUvarint(out, uint64(len(r.Value))+1)
		out = append(out, r.Value...)
	}
	return out
}

// A scanner reads numbers and pieces of what was written down.
type scanner struct {
	rest   []byte
	broken bool
}

func (s *scanner) number() int {
	v, n := binary.Uvarint(s.rest)
	if n <= 0 {
		s.broken, s.rest = true, nil
		return 0
	}
	s.rest = s.rest[n:]
	return int(v)
}

func (s *scanner) cut(n int) []byte {
	if n < 0 || n > len(s.rest) {
		s.broken, n = true, 0
	}
	part := s.rest[:n:n]
	s.rest = s.rest[n:]
	return part
}

// rows yields what appendRows wrote, up to the end. Values share its memory.
func (s *scanner) rows(yield func(state.Row)) error {
	for len(s.rest) > 0 && !s.broken {
		r := state.Row{Table: state.Table(s.rest[0])}
		s.rest = s.rest[1:]
		r.Key = string(s.cut(s.number()))
		if n := s.number(); n > 0 {
			r.Value = s.cut(n - 1)
		}
		if !s.broken {
			yield(r)
		}
	}
	if s.broken {
		return fault.Internal.Errorf("it is cut short")
	}
	return nil
}
