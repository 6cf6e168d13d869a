package store

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// SQLite takes longer to hand over a row than a new leader takes to make sense
// of it. It hands over a whole page in the time of a few rows, so the rows of a
// table are read from its pages here, in the format that SQLite promises for
// ever (https://sqlite.org/fileformat2.html). Which page is the newest of its
// number, in the file or in the log, SQLite still decides.

// pages reads those of the database as of one moment. Its methods may be called
// by several goroutines at once.
type pages struct {
	mu     sync.Mutex
	page   driver.StmtQueryContext
	dest   []driver.Value
	usable int // bytes of a page
}

// openPages returns the pages as the transaction of a connection sees them.
func openPages(ctx context.Context, dc any) (*pages, error) {
	c, ok := dc.(driver.ConnPrepareContext)
	if !ok {
		return nil, fault.Internal.Errorf("the SQLite driver cannot prepare a statement")
	}
	stmt, err := c.PrepareContext(ctx, "SELECT data FROM sqlite_dbpage WHERE pgno = ?1")
	if err != nil {
		return nil, err
	}
	q, ok := stmt.(driver.StmtQueryContext)
	if !ok {
		return nil, errors.Join(fault.Internal.Errorf("the SQLite driver cannot run a statement twice"), stmt.Close())
	}
	p := &pages{page: q, dest: make([]driver.Value, 1)}
	first, err := p.read(1)
	if err == nil && len(first) < 512 {
		err = errNoPage
	}
	if err != nil {
		return nil, errors.Join(err, stmt.Close())
	}
	p.usable = len(first) - int(first[20])
	return p, nil
}

func (p *pages) close() error {
	s, _ := p.page.(driver.Stmt)
	return s.Close()
}

var errNoPage = fault.Internal.Errorf("a page is missing")

// read returns a page, which is the caller's.
func (p *pages) read(n uint32) (b []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Without a context that can end: the driver would start a goroutine to watch it.
	rows, err := p.page.QueryContext(context.Background(), []driver.NamedValue{{Ordinal: 1, Value: int64(n)}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	switch err = rows.Next(p.dest); {
	case errors.Is(err, io.EOF):
		return nil, errNoPage
	case err != nil:
		return nil, err
	}
	b, _ = p.dest[0].([]byte)
	return b, nil
}

// Kinds of pages of a table without rowid, which SQLite keeps as an index.
const (
	inner = 2
	leaf  = 10
	// deepest is how many pages are above each other at most: in a tree of more
	// one of them is above itself.
	deepest = 20
)

// A walk yields the rows of a table in order of their keys. A row is good until
// yield returns.
type walk struct {
	ctx   context.Context //nolint:containedctx // of this walk
	pages *pages
	yield func(text string, key, sealed []byte) error // text is key
}

// tree yields what is at and below page n.
func (w *walk) tree(n uint32, depth int) error {
	if depth > deepest {
		return fault.Internal.Errorf("page %d is above itself", n)
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	b, err := w.pages.read(n)
	if err != nil {
		return err
	}
	p, err := openPage(b, w.pages.usable)
	if err != nil {
		return fault.Internal.Errorf("page %d: %w", n, err)
	}
	for i := range p.cells {
		c, err := p.cell(i)
		if err != nil {
			return fault.Internal.Errorf("page %d: %w", n, err)
		}
		if err = w.below(c.below, depth); err == nil {
			err = w.row(p, c)
		}
		if err != nil {
			return err
		}
	}
	return w.below(p.last, depth)
}

// below yields what is at and below page n, if there is such a page.
func (w *walk) below(n uint32, depth int) error {
	if n == 0 {
		return nil
	}
	return w.tree(n, depth+1)
}

// row yields the row of a cell.
func (w *walk) row(p page, c cell) error {
	record, text := p.bytes[c.at:c.at+c.here], p.text[c.at:c.at+c.here]
	if c.here < c.size {
		whole, err := w.overflow(record, c)
		if err != nil {
			return err
		}
		record, text = whole, string(whole)
	}
	key, value, err := columns(record)
	if err != nil {
		return err
	}
	return w.yield(text[key:value], record[key:value], record[value:])
}

// overflow reads the rest of a record that does not fit its page.
func (w *walk) overflow(begin []byte, c cell) ([]byte, error) {
	whole := append(make([]byte, 0, min(c.size, 1<<20)), begin...)
	for next := c.more; len(whole) < c.size; {
		b, err := w.pages.read(next)
		if err != nil {
			return nil, err
		}
		if len(b) < w.pages.usable || len(b) < 4 {
			return nil, errNoPage
		}
		next = binary.BigEndian.Uint32(b)
		b = b[4:w.pages.usable]
		whole = append(whole, b[:min(len(b), c.size-len(whole))]...)
	}
	return whole, nil
}

// A page is one of a table's.
type page struct {
	bytes  []byte
	text   string // the same: a key is a part of it, and needs no memory of its own
	inner  bool
	cells  int
	ptrs   []byte
	last   uint32 // the page below, after the last cell; 0: there is none
	usable int
}

var errPage = fault.Internal.Errorf("it is no page of a table")

func openPage(b []byte, usable int) (p page, err error) {
	if usable < 480 || len(b) < usable {
		return p, errPage
	}
	b = b[:usable]
	p = page{bytes: b, cells: int(binary.BigEndian.Uint16(b[3:])), usable: usable}
	head := 8
	switch b[0] {
	case leaf:
	case inner:
		p.inner, p.last, head = true, binary.BigEndian.Uint32(b[8:]), 12
		if p.last == 0 {
			return p, errPage
		}
	default:
		return p, errPage
	}
	if head+2*p.cells > len(b) {
		return p, errPage
	}
	p.ptrs, p.text = b[head:], string(b)
	return p, nil
}

// A cell is a place for a row in a page.
type cell struct {
	below uint32 // the page with the rows before this one; 0: there is none
	size  int    // of the record
	at    int    // where it begins in the page
	here  int    // so much of it is there
	more  uint32 // the page with the rest
}

var errCell = fault.Internal.Errorf("a row is cut short")

func (p *page) cell(i int) (c cell, err error) {
	at := int(binary.BigEndian.Uint16(p.ptrs[2*i:]))
	if p.inner {
		if at+4 > p.usable {
			return c, errCell
		}
		if c.below = binary.BigEndian.Uint32(p.bytes[at:]); c.below == 0 {
			return c, errCell
		}
		at += 4
	}
	if at >= p.usable {
		return c, errCell
	}
	size, n := varint(p.bytes[at:])
	if n == 0 || size > maxRecord {
		return c, errCell
	}
	c.size, c.at = int(size), at+n
	c.here = c.size
	// So much of a record stays on the page, as the format has it.
	most, least := (p.usable-12)*64/255-23, (p.usable-12)*32/255-23
	if c.size > most {
		if c.here = least + (c.size-least)%(p.usable-4); c.here > most {
			c.here = least
		}
		if c.at+c.here+4 > p.usable {
			return c, errCell
		}
		c.more = binary.BigEndian.Uint32(p.bytes[c.at+c.here:])
	}
	if c.at+c.here > p.usable {
		return c, errCell
	}
	return c, nil
}

// maxRecord is more than SQLite stores in one record.
const maxRecord = 1 << 30

// columns returns where key and value begin in a record of two blobs, of which
// the value is the rest.
func columns(record []byte) (key, value int, err error) {
	head, n := varint(record)
	first, m := varint(record[n:])
	second, k := varint(record[n+m:])
	blob := func(kind uint64) bool { return kind >= 12 && kind%2 == 0 && kind < 2*maxRecord }
	if n == 0 || m == 0 || k == 0 || head != uint64(n+m+k) || !blob(first) || !blob(second) {
		return 0, 0, errCell
	}
	key = int(head)
	value = key + int(first-12)/2
	if value+int(second-12)/2 != len(record) {
		return 0, 0, errCell
	}
	return key, value, nil
}

// varint reads a number as SQLite writes it, and how many bytes that takes; 0:
// it is cut short.
func varint(b []byte) (v uint64, n int) {
	for i := range min(len(b), 8) {
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	if len(b) < 9 {
		return 0, 0
	}
	return v<<8 | uint64(b[8]), 9
}

// A tableWalk yields the rows of one table as the steps that wait make them.
type tableWalk struct {
	s     *SQLite
	table state.Table
	wait  []state.Row // of this table; they count more than those in it
	yield func(state.Row) error
}

// run walks over the table whose first page is root.
func (t *tableWalk) run(ctx context.Context, p *pages, root uint32) error {
	seal := newSealer()
	var foreign error // not of the database, and not to be explained
	w := walk{ctx: ctx, pages: p, yield: func(key string, raw, sealed []byte) error {
		value, err := seal.open(raw, sealed)
		if err != nil {
			return fault.Internal.Errorf("row %.100q: %w", key, err)
		}
		if foreign = t.until(key, false); foreign != nil {
			return foreign
		}
		if len(t.wait) > 0 && t.wait[0].Key == key {
			return nil // it comes with the next one
		}
		foreign = t.yield(state.Row{Table: t.table, Key: key, Value: value})
		return foreign
	}}
	err := w.tree(root, 0)
	switch {
	case foreign != nil:
		return foreign
	case err != nil && ctx.Err() != nil, code(err) != 0:
		return t.s.explain("load table "+t.table.String(), err)
	case err != nil:
		return t.s.damaged("load table "+t.table.String(), err)
	}
	return t.until("", true)
}

// until yields the waiting rows before key, or all.
func (t *tableWalk) until(key string, all bool) error {
	for len(t.wait) > 0 && (all || t.wait[0].Key < key) {
		if r := t.wait[0]; r.Value != nil {
			if err := t.yield(r); err != nil {
				return err
			}
		}
		t.wait = t.wait[1:]
	}
	return nil
}
