package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/unit"
)

// An export is a copy of a cluster's live rows in a file: what the placer and
// the simulator need, and no secret. Its first line says what it is and of
// which version; then come frames, each a length and a row; the last frame
// counts them and holds the SHA-256 of all that came before, so that a file
// that was cut short or damaged is noticed.

// ExportFormat is the version of exports that this program writes. It reads
// the versions from one back to one ahead.
const ExportFormat = 1 + format.Ahead

const (
	exportMagic = "covey state "
	maxFrame    = 16 << 20 // bytes of a row with its key
)

// Frames that hold no row. Tables are numbered from 1.
const (
	headFrame = 0
	endFrame  = 255
)

// exported lists the tables of an export: credentials are secrets, and
// sources are about facts that an export does not hold.
var exported = [...]Table{ClusterTable, ConfigTable, JobTable, InstanceTable, TaskTable, MachineTable, QuotaTable}

// WriteExport writes an export of s. It holds one row in memory at a time.
func WriteExport(w io.Writer, s *Snapshot) error {
	x := exporter{w: w, sum: sha256.New()}
	x.put([]byte(exportMagic + strconv.Itoa(ExportFormat) + "\n"))
	head := newWriter(32)
	head.uint(1, uint64(s.Rev))
	head.uint(2, uint64(s.Seq))
	head.int(3, int64(s.At))
	x.frame(headFrame, "", head)
	for _, t := range exported {
		x.table(s, t)
	}
	x.frame(endFrame, strconv.FormatUint(x.rows, 10), x.sum.Sum(nil))
	return x.err
}

type exporter struct {
	w    io.Writer
	sum  hash.Hash
	rows uint64
	buf  []byte
	err  error
}

func (x *exporter) put(b []byte) {
	if x.err != nil {
		return
	}
	_, _ = x.sum.Write(b)
	_, x.err = x.w.Write(b)
}

func (x *exporter) frame(t byte, key string, value []byte) {
	x.buf = binary.AppendUvarint(x.buf[:0], uint64(1+protowire.SizeBytes(len(key))+len(value)))
	x.buf = append(x.buf, t)
	x.buf = protowire.AppendString(x.buf, key)
	x.buf = append(x.buf, value...)
	x.put(x.buf)
}

func (x *exporter) row(t Table, key string, value []byte) bool {
	x.rows++
	x.frame(byte(t), key, value)
	return x.err == nil
}

func (x *exporter) table(s *Snapshot, t Table) {
	switch t {
	case ClusterTable:
		x.row(t, ClusterKey(), EncodeCluster(s.Cluster))
	case ConfigTable:
		s.configs.Ascend(func(c config) bool { return x.row(t, ConfigKey(c.hash), c.encoded) })
	case JobTable:
		s.jobs.Ascend(func(j Job) bool { return x.row(t, JobKey(j.Key), EncodeJob(j)) })
	case InstanceTable:
		s.instances.all(func(i Instance) bool { return x.row(t, SlotKey(i.Slot), EncodeInstance(i)) })
	case TaskTable:
		s.tasks.all(func(k Task) bool { return x.row(t, TaskKey(k.ID), EncodeTask(k)) })
	case MachineTable:
		s.machines.all(func(m Machine) bool { return x.row(t, MachineKey(m.ID), EncodeMachine(m)) })
	case QuotaTable:
		s.quotas.Ascend(func(q Quota) bool { return x.row(t, QuotaKey(q.Role), EncodeQuota(q)) })
	case CredentialTable, SourceTable:
	}
}

// ReadExport reads what [WriteExport] wrote. An error of kind Invalid says what
// is wrong with it: another version, cut short, damaged, or no export at all.
func ReadExport(r io.Reader) (*Snapshot, error) {
	x := importer{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	if err := x.version(); err != nil {
		return nil, err
	}
	var head Head
	t, _, value, err := x.next()
	if err == nil && t != headFrame {
		err = fault.Invalid.Errorf("it does not begin with its head")
	}
	if err == nil {
		head, err = decodeExportHead(value)
	}
	if err != nil {
		return nil, err
	}
	s, err := Restore(func(yield func(Row) error) (Head, error) { return head, x.rows(yield) })
	if err != nil {
		return nil, fault.Invalid.Errorf("%w", err)
	}
	return s, nil
}

func decodeExportHead(value []byte) (h Head, err error) {
	r := newReader(value, nil)
	for r.next() {
		switch r.num {
		case 1:
			h.Rev = Rev(r.value)
		case 2:
			h.Seq = Seq(r.value)
		case 3:
			h.At = unit.Tick(r.value)
		}
	}
	if r.err != nil {
		return h, fault.Invalid.Errorf("its head: %w", r.err)
	}
	return h, nil
}

type importer struct {
	r    *bufio.Reader
	sum  hash.Hash
	n    uint64 // rows
	read int64  // bytes
	buf  []byte
}

// version reads the first line.
func (x *importer) version() error {
	line, err := x.r.ReadSlice('\n')
	text, ok := strings.CutPrefix(string(line), exportMagic)
	switch {
	case len(line) == 0 && errors.Is(err, io.EOF):
		return fault.Invalid.Errorf("it is empty; want a file of covey state export")
	case !ok:
		return fault.Invalid.Errorf("it is no export of a cluster's state: it begins with %.20q; want a file of covey state export", line)
	case err != nil:
		return x.cut(err)
	}
	v, err := strconv.Atoi(strings.TrimSuffix(text, "\n"))
	if err != nil || v < 1 {
		return fault.Invalid.Errorf("its version is %.20q; want a number", strings.TrimSuffix(text, "\n"))
	}
	if v < max(1, ExportFormat-1) || v > ExportFormat+1 {
		return fault.Invalid.Errorf("it is of version %d; this program reads %d to %d: export it again, or use a covey of its version", v, max(1, ExportFormat-1), ExportFormat+1)
	}
	_, _ = x.sum.Write(line)
	x.read += int64(len(line))
	return nil
}

func (x *importer) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Invalid.Errorf("it is cut short after %d bytes and %d rows; export it again", x.read, x.n)
	}
	return fault.Invalid.Errorf("it cannot be read after %d bytes: %w", x.read, err)
}

// next reads one frame. What it returns is good until the next one.
func (x *importer) next() (t byte, key string, value []byte, err error) {
	size, err := binary.ReadUvarint(x.r)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return 0, "", nil, fault.Invalid.Errorf("it is damaged after %d bytes: %w", x.read, err)
	case err != nil:
		return 0, "", nil, x.cut(err)
	case size < 2 || size > maxFrame:
		return 0, "", nil, fault.Invalid.Errorf("it is damaged after %d bytes: a row of %d bytes; want 2 to %d", x.read, size, maxFrame)
	}
	if uint64(cap(x.buf)) < size {
		x.buf = make([]byte, size)
	}
	x.buf = x.buf[:size]
	if _, err = io.ReadFull(x.r, x.buf); err != nil {
		return 0, "", nil, x.cut(err)
	}
	var before []byte
	if x.buf[0] == endFrame {
		before = x.sum.Sum(nil)
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], size)
	_, _ = x.sum.Write(length[:n])
	_, _ = x.sum.Write(x.buf)
	k, used := protowire.ConsumeBytes(x.buf[1:])
	if used < 0 {
		return 0, "", nil, fault.Invalid.Errorf("it is damaged after %d bytes: a key is broken", x.read)
	}
	x.read += int64(n) + int64(size)
	t, key, value = x.buf[0], string(k), x.buf[1+used:]
	if t == endFrame {
		err = x.end(key, value, before)
	}
	return t, key, value, err
}

// end checks the last frame.
func (x *importer) end(count string, sum, before []byte) error {
	if count != strconv.FormatUint(x.n, 10) {
		return fault.Invalid.Errorf("it holds %d rows; want %.20s, as its end says: export it again", x.n, count)
	}
	if !bytes.Equal(sum, before) {
		return fault.Invalid.Errorf("it is damaged: its sum is not what its end says; export it again")
	}
	if _, err := x.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fault.Invalid.Errorf("something follows its end, %d bytes after its beginning", x.read)
	}
	return nil
}

// rows yields every row up to the end.
func (x *importer) rows(yield func(Row) error) error {
	for {
		t, key, value, err := x.next()
		switch {
		case err != nil:
			return err
		case t == endFrame:
			return nil
		case t == headFrame:
			return fault.Invalid.Errorf("it has two heads")
		}
		x.n++
		if err := yield(Row{Table(t), key, value}); err != nil {
			return fmt.Errorf("row %d: %w", x.n, err)
		}
	}
}
