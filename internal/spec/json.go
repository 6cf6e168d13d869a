package spec

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

func itoa(n int) string { return strconv.Itoa(n) }

// encode prints an object as canonical JSON: sorted names, no blanks, floats
// with a point or an exponent. Equal objects give equal bytes.
func encode(in *pyx.Interp, o *object) ([]byte, error) {
	var b bytes.Buffer
	err := encodeTo(in, &b, o)
	return b.Bytes(), err
}

func encodeTo(in *pyx.Interp, b *bytes.Buffer, o *object) error {
	if err := in.Enter(); err != nil {
		return err
	}
	defer in.Leave()
	if err := in.Step(1); err != nil {
		return err
	}
	switch o.typ.kind {
	case kStruct:
		names := o.typ.fieldNames()
		slices.Sort(names)
		m := make([]member, 0, len(names))
		for _, n := range names {
			if v := o.get(n); v != nil {
				m = append(m, member{n, v})
			}
		}
		return encodeMembers(in, b, m)
	case kMap:
		var m []member
		for _, p := range o.pairs {
			k, _ := coerceString(p.key.val)
			name, _ := k.(string)
			m = append(m, member{name, p.val})
		}
		slices.SortStableFunc(m, func(x, y member) int { return bytes.Compare([]byte(x.name), []byte(y.name)) })
		return encodeMembers(in, b, m)
	case kList:
		b.WriteByte('[')
		for i, x := range o.items {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := encodeTo(in, b, x); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case kChoice:
		x, err := interpolated(in, o)
		if err != nil {
			return err
		}
		return encodeTo(in, b, x)
	default:
		return encodeValue(in, b, o.val)
	}
}

type member struct {
	name string
	val  *object
}

func encodeMembers(in *pyx.Interp, b *bytes.Buffer, m []member) error {
	b.WriteByte('{')
	for i, x := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encodeValue(in, b, x.name); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := encodeTo(in, b, x.val); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func encodeValue(in *pyx.Interp, b *bytes.Buffer, v pyx.Value) error {
	if f, ok := v.(float64); ok {
		b.WriteString(pyx.FormatFloat(f, -1))
		return nil
	}
	if _, ok := v.(string); !ok {
		if _, plain := coerceString(v); !plain {
			v, _ = in.Repr(v)
		}
	}
	if s, ok := v.(string); ok && plainText(s) {
		b.WriteByte('"')
		b.WriteString(s)
		b.WriteByte('"')
		return nil
	}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return pyx.Errorf("ValueError", "%s", err)
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
	return nil
}

// plainText reports whether a string stands in JSON as it is.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
