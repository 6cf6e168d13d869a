package rate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// MaxBook bounds a price book, in bytes.
const MaxBook = 1 << 20

// Parse reads a price book:
//
//	{
//	  "currency": "USD",
//	  "prices": [
//	    {"to": "2026-07-01T00:00:00Z",
//	     "cpu_core_hour": "0.031611", "ram_gib_hour": "0.004237", "disk_gib_hour": "0.000054795", "gpu_hour": "0.95"},
//	    {"from": "2026-07-01T00:00:00Z",
//	     "cpu_core_hour": "0.03", "ram_gib_hour": "0.004", "disk_gib_hour": "0.00005", "gpu_hour": "0.9"}
//	  ]
//	}
//
// Entries are in order of time and do not overlap. Each holds from "from" until
// just before "to", both on the hour; an entry without one of them has no
// bound there. Prices are plain decimal numbers with at most nine digits
// behind the point, in quotes or not; all four are given, 0 is a price.
// Errors are of kind Invalid and name the line and column.
func Parse(data []byte) (Book, error) {
	if len(data) > MaxBook {
		return Book{}, fault.Invalid.Errorf("the price book has %d bytes; want at most %d", len(data), MaxBook)
	}
	p := &parser{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	b, err := p.book()
	if err != nil {
		return Book{}, err
	}
	return b, nil
}

// A parser walks the tokens of a price book, so that it knows where each is.
type parser struct {
	data []byte
	dec  *json.Decoder
	at   int // where the last token starts
}

func (p *parser) book() (Book, error) {
	var b Book
	err := p.object("the price book", []string{"currency", "prices"}, nil, func(field string) (err error) {
		if field == "currency" {
			b.Currency, err = p.currency()
		} else {
			b.Prices, err = p.prices()
		}
		return err
	})
	if err != nil {
		return b, err
	}
	if t, err := p.next(); !errors.Is(err, io.EOF) {
		return b, p.wrong("something follows the price book (%v); want its end", t)
	}
	return b, nil
}

func (p *parser) currency() (string, error) {
	s, err := p.text("currency")
	if err == nil && (len(s) != 3 || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
		return "", p.wrong("currency is %.40q; want three capital letters, such as USD", s)
	}
	return s, err
}

func (p *parser) prices() ([]Price, error) {
	if t, err := p.next(); err != nil || t != json.Delim('[') {
		return nil, p.want(t, err, "prices", "a list of entries")
	}
	var all []Price
	for p.dec.More() {
		x, start, err := p.price()
		if err != nil {
			return nil, err
		}
		if x.From >= x.To {
			return nil, p.wrongAt(start, `the price ends before it begins: "from" is not before "to"`)
		}
		if n := len(all); n > 0 && x.From < all[n-1].To {
			return nil, p.wrongAt(start, "the price begins before the one above it ends; want entries in order of time that do not overlap")
		}
		all = append(all, x)
	}
	if t, err := p.next(); err != nil || t != json.Delim(']') {
		return nil, p.want(t, err, "prices", "the end of the list")
	}
	if len(all) == 0 {
		return nil, p.wrong("prices is empty; want at least one entry")
	}
	return all, nil
}

func (p *parser) price() (x Price, start int, err error) {
	x = Price{From: Always, To: Forever}
	names := make([]string, 0, len(priceFields))
	for _, f := range priceFields {
		names = append(names, f.name)
	}
	err = p.object("the price", names, []string{"from", "to"}, func(field string) (err error) {
		switch field {
		case "from":
			x.From, err = p.hour(field)
		case "to":
			x.To, err = p.hour(field)
		default:
			*priceFields[slices.Index(names, field)].of(&x), err = p.amount(field)
		}
		return err
	}, &start)
	return x, start, err
}

// object reads an object with fields, each once: all that it needs, and what
// it may have. It tells where the object starts.
func (p *parser) object(what string, needs, may []string, read func(field string) error, start ...*int) error {
	if t, err := p.next(); err != nil || t != json.Delim('{') {
		return p.want(t, err, what, "an object")
	}
	begin := p.at
	for _, s := range start {
		*s = begin
	}
	known := slices.Concat(needs, may)
	seen := map[string]bool{}
	for p.dec.More() {
		t, err := p.next()
		name, ok := t.(string)
		if err != nil || !ok {
			return p.want(t, err, what, "the name of a field")
		}
		switch {
		case !slices.Contains(known, name):
			return p.wrong("%s has no field %.40q; want one of %s", what, name, strings.Join(known, ", "))
		case seen[name]:
			return p.wrong("field %s is given twice", name)
		}
		seen[name] = true
		if err := read(name); err != nil {
			return err
		}
	}
	if t, err := p.next(); err != nil || t != json.Delim('}') {
		return p.want(t, err, what, "its end")
	}
	for _, name := range needs {
		if !seen[name] {
			return p.wrongAt(begin, "%s has no %s; want %s", what, name, strings.Join(needs, ", "))
		}
	}
	return nil
}

func (p *parser) hour(field string) (unit.Tick, error) {
	s, err := p.text(field)
	if err != nil {
		return 0, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 || t.Year() > 2261 {
		return 0, p.wrong("%s is %.40q; want a time from 1970 to 2261, such as 2026-07-01T00:00:00Z", field, s)
	}
	at := unit.TickAt(t)
	if at.FloorHour() != at || at.Time() != t.UTC() {
		return 0, p.wrong("%s is %s, inside an hour; prices change on the hour", field, s)
	}
	return at, nil
}

func (p *parser) amount(field string) (int64, error) {
	t, err := p.next()
	var s string
	switch t := t.(type) {
	case string:
		s = t
	case json.Number:
		s = t.String()
	default:
		return 0, p.want(t, err, field, "a price, such as 0.031611")
	}
	n, err := unit.ParsePrice(s)
	if err != nil {
		return 0, p.wrong("%s: %w", field, err)
	}
	return n, nil
}

func (p *parser) text(field string) (string, error) {
	t, err := p.next()
	s, ok := t.(string)
	if err != nil || !ok {
		return "", p.want(t, err, field, "a string")
	}
	return s, nil
}

// next reads one token and remembers where it starts.
func (p *parser) next() (json.Token, error) {
	p.at = int(p.dec.InputOffset())
	for p.at < len(p.data) && strings.IndexByte(" \t\r\n,:", p.data[p.at]) >= 0 {
		p.at++
	}
	return p.dec.Token()
}

// want says that a token is not what it should be, or why there is none.
func (p *parser) want(t json.Token, err error, what, want string) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return p.wrong("the price book ends in the middle of %s; want %s", what, want)
	case err != nil:
		return p.wrong("%s: %w", what, err)
	case t == nil:
		return p.wrong("%s is null; want %s", what, want)
	}
	return p.wrong("%s is %.40q; want %s", what, fmt.Sprint(t), want)
}

func (p *parser) wrong(format string, args ...any) error { return p.wrongAt(p.at, format, args...) }

func (p *parser) wrongAt(at int, format string, args ...any) error {
	before := p.data[:at]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := at - bytes.LastIndexByte(before, '\n')
	return fault.Invalid.Errorf("price book, line %d, column %d: %w", line, column, fmt.Errorf(format, args...))
}
