package state

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// A block of records is a format byte and a stream of fields: a word, which
// the records after it name by its number, from 1, so that a job key, a hash or
// a machine stands once in a block; or a record. A record's number follows
// the one before it, its time is that of the one before it, and the times of
// its task are its own time, unless it says otherwise.
const (
	wordField   protowire.Number = 1
	recordField protowire.Number = 2
)

// maxResources is the size of five fields with the longest numbers, in bytes.
const maxResources = 5 * (1 + 10)

// maxWord is the longest string that is made a word, in bytes.
const maxWord = 256

// EncodeRecords returns a block of records, in their order. A record whose
// field for its kind is nil is stored as one whose field is empty.
func EncodeRecords(records []Record) []byte {
	e := encoder{out: newWriter(1024 + 48*len(records)), words: make(map[string]uint64, 64)}
	for i := range records {
		e.record(&records[i])
	}
	return e.out
}

type encoder struct {
	out   writer // what is done
	rec   writer // the record at hand
	inner writer // the message in it
	words map[string]uint64
	seq   Seq
	at    unit.Tick
}

func (e *encoder) record(r *Record) {
	e.rec = e.rec[:0]
	if r.Seq != e.seq+1 {
		e.rec.one(1, uint64(r.Seq))
	}
	if r.At != e.at {
		e.rec.one(2, zigzag(r.At, e.at))
	}
	e.seq, e.at = r.Seq, r.At
	e.rec.uint(3, uint64(r.Kind))
	e.word(&e.rec, 4, r.By)
	switch r.Kind {
	case TaskRecord:
		e.inner = e.inner[:0]
		if r.Task != nil {
			e.task(r.Task, r.At)
		}
		e.rec.bytes(5, e.inner)
	case JobRecord:
		e.inner = e.inner[:0]
		if r.Job != nil {
			e.job(r.Job)
		}
		e.rec.bytes(6, e.inner)
	case MachineRecord:
		e.inner = e.inner[:0]
		if r.Machine != nil {
			e.machine(r.Machine)
		}
		e.rec.bytes(7, e.inner)
	case ClusterRecord:
		var c Cluster
		if r.Cluster != nil {
			c = *r.Cluster
		}
		e.rec.bytes(8, EncodeCluster(c))
	case FactRecord:
		e.inner = e.inner[:0]
		if r.Fact != nil {
			e.word(&e.inner, 1, r.Fact.Source)
			e.inner.uint(2, r.Fact.Seq)
			if len(r.Fact.Payload) > 0 {
				e.inner.bytes(3, r.Fact.Payload)
			}
		}
		e.rec.bytes(9, e.inner)
	case QuotaRecord:
		e.inner = e.inner[:0]
		if r.Quota != nil {
			e.word(&e.inner, 1, r.Quota.Quota.Role)
			e.inner.bytes(2, EncodeQuota(r.Quota.Quota))
			e.inner.flag(3, r.Quota.Dropped)
		}
		e.rec.bytes(10, e.inner)
	}
	e.out.bytes(recordField, e.rec)
}

func (e *encoder) task(c *TaskChange, at unit.Tick) {
	t, w := &c.After, &e.inner
	w.uint(1, uint64(c.Before))
	e.word(w, 2, string(t.ID.Job))
	w.int(3, int64(t.ID.Instance))
	w.uint(4, uint64(t.ID.Attempt))
	if t.Config != (job.Hash{}) {
		e.data(w, 5, t.Config[:])
	}
	if t.Resources != (unit.Resources{}) {
		var room [maxResources]byte
		e.data(w, 6, appendResources(room[:0], t.Resources))
	}
	w.uint(7, uint64(t.State))
	e.word(w, 8, string(t.Machine))
	w.ports(9, t.Ports)
	if t.Created != at {
		w.one(10, zigzag(t.Created, at))
	}
	if t.Since != at {
		w.one(11, zigzag(t.Since, at))
	}
	if t.Ran != 0 {
		w.one(12, zigzag(t.Ran, at))
	}
	w.int(13, int64(t.Failures))
	w.flag(14, t.Wanted)
	e.word(w, 15, t.Reason)
	w.resources(16, c.Free)
	w.ports(17, t.GPUs)
	e.word(w, 18, string(t.Room))
	w.int(19, int64(t.RoomUntil))
}

func (e *encoder) job(c *JobChange) {
	w := &e.inner
	e.word(w, 1, string(c.Job.Key))
	w.bytes(2, EncodeJob(c.Job))
	w.flag(3, c.Dropped)
	e.word(w, 4, c.Reason)
}

func (e *encoder) machine(c *MachineChange) {
	w := &e.inner
	for n, m := range []*machine.Machine{&c.Before, &c.After} {
		row := newWriter(256)
		row.machine(m)
		n := protowire.Number(2*n + 1)
		e.word(w, n, string(m.ID))
		if len(row) > 1 {
			w.bytes(n+1, row)
		}
	}
	w.flag(5, c.Left)
	w.resources(6, c.Free)
	w.strays(7, c.Strays)
}

// word appends a field that says s by its number, or s itself if it is long.
func (e *encoder) word(w *writer, n protowire.Number, s string) {
	switch {
	case s == "":
		return
	case len(s) > maxWord:
		w.must(n, s)
		return
	}
	i, ok := e.words[s]
	if !ok {
		i = e.learn(s)
	}
	w.uint(n, i)
}

// data is word for bytes that no string is made of yet.
func (e *encoder) data(w *writer, n protowire.Number, b []byte) {
	i, ok := e.words[string(b)]
	if !ok {
		i = e.learn(string(b))
	}
	w.uint(n, i)
}

func (e *encoder) learn(s string) uint64 {
	i := uint64(len(e.words) + 1)
	e.words[s] = i
	e.out.must(wordField, s)
	return i
}

// one appends v even when it is zero.
func (w *writer) one(n protowire.Number, v uint64) {
	*w = protowire.AppendVarint(protowire.AppendTag(*w, n, protowire.VarintType), v)
}

// zigzag returns how far t is from another tick. It may wrap around, and back.
func zigzag(t, from unit.Tick) uint64 { return protowire.EncodeZigZag(int64(t) - int64(from)) }

// DecodeRecords reads what [EncodeRecords] returned. A record of a kind that
// a newer format has added comes with none of its fields set. An error is of
// kind Internal. What is allocated is in proportion to the length of b.
func DecodeRecords(b []byte) ([]Record, error) {
	d := decoder{}
	r := newReader(b, nil)
	var out []Record
	for r.next() {
		switch r.num {
		case wordField:
			d.words = append(d.words, r.str())
		case recordField:
			rec, err := d.record(r.inner())
			if err != nil {
				return nil, fault.Internal.Errorf("record %d of a block cannot be read: %w", len(out)+1, err)
			}
			out = append(out, rec)
		default: // added by a newer format
		}
	}
	if r.err != nil {
		return nil, fault.Internal.Errorf("a block of records cannot be read after record %d: %w", len(out), r.err)
	}
	return out, nil
}

type decoder struct {
	words []string
	seq   Seq
	at    unit.Tick
}

func (d *decoder) record(r *reader) (Record, error) {
	rec := Record{Seq: d.seq + 1, At: d.at}
	for r.next() {
		switch r.num {
		case 1:
			rec.Seq = Seq(r.uint(math.MaxUint64))
		case 2:
			rec.At = d.tick(r, d.at)
		case 3:
			rec.Kind = Kind(r.uint(math.MaxUint8))
		case 4:
			rec.By = d.word(r)
		case 5:
			rec.Task = d.task(r, rec.At)
		case 6:
			rec.Job = d.job(r)
		case 7:
			rec.Machine = d.machine(r)
		case 8:
			c, err := DecodeCluster(r.bytes())
			if err != nil {
				r.fail("cluster: %w", err)
			}
			rec.Cluster = &c
		case 9:
			rec.Fact = d.fact(r)
		case 10:
			rec.Quota = d.quota(r)
		}
	}
	d.seq, d.at = rec.Seq, rec.At
	if r.err == nil {
		r.err = rec.whole()
	}
	return rec, r.err
}

// whole reports whether exactly the field for r's kind is set.
func (r *Record) whole() error {
	for k, set := range [...]bool{
		TaskRecord: r.Task != nil, JobRecord: r.Job != nil, MachineRecord: r.Machine != nil,
		ClusterRecord: r.Cluster != nil, FactRecord: r.Fact != nil, QuotaRecord: r.Quota != nil,
	} {
		if set != (Kind(k) == r.Kind && k != 0) {
			return fault.Internal.Errorf("it is of kind %d and its field for kind %d does not fit that", r.Kind, k)
		}
	}
	return nil
}

func (d *decoder) task(r *reader, at unit.Tick) *TaskChange {
	c := &TaskChange{}
	t := &c.After
	t.Created, t.Since = at, at
	in := r.inner()
	for in.next() {
		switch in.num {
		case 1:
			c.Before = in.state()
		case 2:
			t.ID.Job = job.Key(d.word(in))
		case 3:
			t.ID.Instance = in.int32()
		case 4:
			t.ID.Attempt = uint32(in.uint(math.MaxUint32))
		case 5:
			t.Config = d.hash(in)
		case 6:
			t.Resources = d.resources(in)
		case 7:
			t.State = in.state()
		case 8:
			t.Machine = machine.ID(d.word(in))
		case 9:
			t.Ports = in.ports()
		case 10:
			t.Created = d.tick(in, at)
		case 11:
			t.Since = d.tick(in, at)
		case 12:
			t.Ran = d.tick(in, at)
		case 13:
			t.Failures = in.int32()
		case 14:
			t.Wanted = in.flag()
		case 15:
			t.Reason = d.word(in)
		case 16:
			c.Free = in.resources()
		case 17:
			t.GPUs = in.ports()
		case 18:
			t.Room = machine.ID(d.word(in))
		case 19:
			t.RoomUntil = unit.Tick(in.int())
		}
	}
	r.err = in.err
	return c
}

func (d *decoder) job(r *reader) *JobChange {
	c := &JobChange{}
	var row []byte
	in := r.inner()
	for in.next() {
		switch in.num {
		case 1:
			c.Job.Key = job.Key(d.word(in))
		case 2:
			row = in.bytes()
		case 3:
			c.Dropped = in.flag()
		case 4:
			c.Reason = d.word(in)
		}
	}
	if r.err = in.err; r.err == nil && row != nil {
		c.Job, r.err = DecodeJob(string(c.Job.Key), row)
	}
	return c
}

func (d *decoder) machine(r *reader) *MachineChange {
	c := &MachineChange{}
	in := r.inner()
	for in.next() {
		switch in.num {
		case 1:
			c.Before.ID = machine.ID(d.word(in))
		case 2:
			in.known(&c.Before)
		case 3:
			c.After.ID = machine.ID(d.word(in))
		case 4:
			in.known(&c.After)
		case 5:
			c.Left = in.flag()
		case 6:
			c.Free = in.resources()
		case 7:
			c.Strays = append(c.Strays, in.stray())
		}
	}
	r.err = in.err
	return c
}

// known reads the field that holds what writer.machine appended.
func (r *reader) known(m *machine.Machine) {
	row := newReader(r.bytes(), nil)
	if r.err != nil {
		return
	}
	for row.next() {
		row.machine(m)
	}
	r.err = row.err
}

func (d *decoder) fact(r *reader) *Fact {
	f := &Fact{}
	in := r.inner()
	for in.next() {
		switch in.num {
		case 1:
			f.Source = d.word(in)
		case 2:
			f.Seq = in.uint(math.MaxUint64)
		case 3:
			f.Payload = append([]byte(nil), in.bytes()...)
		}
	}
	r.err = in.err
	return f
}

func (d *decoder) quota(r *reader) *QuotaChange {
	c := &QuotaChange{}
	var row []byte
	in := r.inner()
	for in.next() {
		switch in.num {
		case 1:
			c.Quota.Role = d.word(in)
		case 2:
			row = in.bytes()
		case 3:
			c.Dropped = in.flag()
		}
	}
	if r.err = in.err; r.err == nil && row != nil {
		c.Quota, r.err = DecodeQuota(c.Quota.Role, row)
	}
	return c
}

// word reads a string that is there, or the number of one.
func (d *decoder) word(r *reader) string {
	if r.typ == protowire.BytesType {
		return r.str()
	}
	i := r.uint(uint64(len(d.words)))
	if r.err != nil {
		return ""
	}
	if i == 0 {
		r.fail("field %d is word 0; words are numbered from 1", r.num)
		return ""
	}
	return d.words[i-1]
}

func (d *decoder) hash(r *reader) job.Hash {
	s := d.word(r)
	if len(s) != len(job.Hash{}) {
		r.fail("field %d has %d bytes; want a hash of %d", r.num, len(s), len(job.Hash{}))
		return job.Hash{}
	}
	return job.Hash([]byte(s))
}

func (d *decoder) resources(r *reader) unit.Resources {
	var x unit.Resources
	s := d.word(r)
	if len(s) > maxResources {
		r.fail("field %d has %d bytes; want at most %d", r.num, len(s), maxResources)
		return x
	}
	in := &reader{rest: []byte(s), err: r.err}
	for in.next() {
		if in.num > 5 {
			in.closed()
			break
		}
		in.measure(&x, in.num-1)
	}
	r.err = in.err
	return x
}

func (d *decoder) tick(r *reader, from unit.Tick) unit.Tick {
	return from + unit.Tick(protowire.DecodeZigZag(r.uint(math.MaxUint64)))
}
