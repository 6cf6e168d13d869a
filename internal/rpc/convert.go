package rpc

import (
	"encoding/hex"
	"math"
	"strings"
	"time"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// text makes s fit for the wire, which takes UTF-8 only.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// named is [name.Valid] with the blame where it belongs.
func named(what, s string) error {
	if err := name.Valid(what, s); err != nil {
		return fault.Invalid.Errorf("%w", err)
	}
	return nil
}

func texts(ss []string) []string {
	var out []string
	for _, s := range ss {
		out = append(out, text(s))
	}
	return out
}

// nanos is a moment on the wire: nanoseconds since the Unix epoch, 0 if none.
func nanos(t unit.Tick) int64 {
	if t == 0 {
		return 0
	}
	return t.Time().UnixNano()
}

// tickOf is [nanos] backwards.
func tickOf(nanos int64) unit.Tick {
	if nanos == 0 {
		return 0
	}
	return unit.TickAt(time.Unix(0, nanos))
}

// count is a number of things on the wire.
func count(n int) int32 { return int32(min(n, math.MaxInt32)) }

func resourcesToWire(r unit.Resources) *pb.Resources {
	return &pb.Resources{CpuMilli: r.CPU, RamBytes: r.RAM, DiskBytes: r.Disk, GpuMilli: r.GPU, NetBps: r.Net}
}

func resourcesFromWire(p *pb.Resources) unit.Resources {
	return unit.Resources{
		CPU: p.GetCpuMilli(), RAM: p.GetRamBytes(), Disk: p.GetDiskBytes(), GPU: p.GetGpuMilli(), Net: p.GetNetBps(),
	}
}

func epochToWire(e machine.Epoch) *pb.Epoch { return &pb.Epoch{Incarnation: e.Incarnation, N: e.N} }

func epochFromWire(p *pb.Epoch) machine.Epoch {
	return machine.Epoch{Incarnation: p.GetIncarnation(), N: p.GetN()}
}

func machineToWire(m machine.Machine) *pb.Machine {
	p := &pb.Machine{
		Id: string(m.ID), Host: text(m.Host), Capacity: resourcesToWire(m.Capacity), Overhead: resourcesToWire(m.Overhead), Owed: resourcesToWire(m.Owed),
		Foreign: resourcesToWire(m.Foreign), Mode: m.Mode.String(), Up: m.Up, Leaving: m.Leaving, Avoid: text(m.Avoid), Limits: texts(m.Limits),
		AvoidUntilUnixNanos: avoidedUntil(m), Avoided: m.Avoided,
		PortFrom: uint32(m.Ports.From), PortTo: uint32(m.Ports.To), Boot: text(m.Boot),
	}
	for _, a := range m.Attributes {
		p.Attributes = append(p.Attributes, &pb.Attribute{Name: text(a.Name), Value: text(a.Value)})
	}
	return p
}

// avoidedUntil is until when a machine is avoided, which it may be without end.
func avoidedUntil(m machine.Machine) int64 {
	if m.Avoid == "" {
		return 0
	}
	return nanos(m.AvoidUntil)
}

// Bounds of what an agent may say about its machine.
const (
	maxAttributes = 256
	maxLimits     = 64
	maxText       = 4 << 10 // bytes of one text
)

func machineFromWire(p *pb.Machine) (machine.Machine, error) {
	m := machine.Machine{
		ID: machine.ID(p.GetId()), Host: p.GetHost(), Capacity: resourcesFromWire(p.GetCapacity()),
		Overhead: resourcesFromWire(p.GetOverhead()), Owed: resourcesFromWire(p.GetOwed()), Foreign: resourcesFromWire(p.GetForeign()),
		Up: p.GetUp(), Leaving: p.GetLeaving(), Avoid: p.GetAvoid(), Boot: p.GetBoot(), Limits: p.GetLimits(),
		AvoidUntil: tickOf(p.GetAvoidUntilUnixNanos()), Avoided: p.GetAvoided(),
	}
	if len(p.GetAttributes()) > maxAttributes || len(m.Limits) > maxLimits || len(m.Host) > maxText || len(m.Boot) > maxText || len(m.Avoid) > maxText {
		return m, fault.Invalid.Errorf("machine %.80s has %d attributes and %d limits; want at most %d and %d, and no text beyond %d bytes",
			m.ID, len(p.GetAttributes()), len(m.Limits), maxAttributes, maxLimits, maxText)
	}
	for _, a := range p.GetAttributes() {
		m.Attributes = append(m.Attributes, machine.Attribute{Name: a.GetName(), Value: a.GetValue()})
	}
	var err error
	if m.Ports.From, err = portFromWire(p.GetPortFrom()); err != nil {
		return m, err
	}
	if m.Ports.To, err = portFromWire(p.GetPortTo()); err != nil {
		return m, err
	}
	m.Mode, err = modeFromWire(p.GetMode())
	return m, err
}

func modeFromWire(s string) (machine.Mode, error) {
	for m := machine.None; m <= machine.Drained; m++ {
		if m.String() == s || m == machine.None && s == "" {
			return m, nil
		}
	}
	return 0, fault.Invalid.Errorf("machine mode %.40q; want NONE, SCHEDULED, DRAINING or DRAINED", s)
}

func portFromWire(p uint32) (uint16, error) {
	if p > math.MaxUint16 {
		return 0, fault.Invalid.Errorf("port %d; want 0 to 65535", p)
	}
	return uint16(p), nil
}

func portsToWire(ps []uint16) []uint32 {
	var out []uint32
	for _, p := range ps {
		out = append(out, uint32(p))
	}
	return out
}

// maxPorts bounds the ports of one task; a job names at most 64.
const maxPorts = 64

func portsFromWire(ps []uint32) ([]uint16, error) {
	if len(ps) > maxPorts {
		return nil, fault.Invalid.Errorf("a task with %d ports; want at most %d", len(ps), maxPorts)
	}
	var out []uint16
	for _, p := range ps {
		x, err := portFromWire(p)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// maxGPUs bounds the GPUs of one machine.
const maxGPUs = 1024

func gpusFromWire(ps []uint32) ([]uint16, error) {
	if len(ps) > maxGPUs {
		return nil, fault.Invalid.Errorf("a task with %d GPUs; want at most %d", len(ps), maxGPUs)
	}
	var out []uint16
	for _, p := range ps {
		if p >= maxGPUs {
			return nil, fault.Invalid.Errorf("a task with GPU number %d; want less than %d", p, maxGPUs)
		}
		out = append(out, uint16(p))
	}
	return out, nil
}

// hashToWire writes a hash in hex; no hash is the empty string.
func hashToWire(h job.Hash) string {
	if h == (job.Hash{}) {
		return ""
	}
	return h.String()
}

func hashFromWire(s string) (job.Hash, error) {
	var h job.Hash
	if s == "" {
		return h, nil
	}
	if len(s) != hex.EncodedLen(len(h)) {
		return h, fault.Invalid.Errorf("config hash %.80q; want %d hex digits", s, hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, fault.Invalid.Errorf("config hash %.80q: %w", s, err)
	}
	return h, nil
}

func sightingToWire(s task.Sighting) *pb.Sighting {
	return &pb.Sighting{
		Id: s.ID.String(), ConfigHash: hashToWire(s.Config), Resources: resourcesToWire(s.Resources),
		Ports: portsToWire(s.Ports), Gpus: portsToWire(s.GPUs), State: s.State.String(), Reason: text(s.Reason),
		Orphan: s.Orphan,
	}
}

func sightingFromWire(p *pb.Sighting) (s task.Sighting, err error) {
	if s.ID, err = task.ParseID(p.GetId()); err != nil {
		return s, err
	}
	if s.Config, err = hashFromWire(p.GetConfigHash()); err != nil {
		return s, err
	}
	if s.Ports, err = portsFromWire(p.GetPorts()); err != nil {
		return s, err
	}
	if s.GPUs, err = gpusFromWire(p.GetGpus()); err != nil {
		return s, err
	}
	switch st, _ := task.ParseState(p.GetState()); st {
	case task.Starting, task.Running, task.Finished, task.Failed, task.Killed, task.Lost:
		s.State = st
	default:
		return s, fault.Invalid.Errorf("task %v is said to be %.40q; want STARTING, RUNNING, FINISHED, FAILED, KILLED or LOST", s.ID, p.GetState())
	}
	s.Resources, s.Reason, s.Orphan = resourcesFromWire(p.GetResources()), p.GetReason(), p.GetOrphan()
	for _, m := range unit.Measures() {
		if s.Resources.Of(m) < 0 {
			return s, fault.Invalid.Errorf("task %v is said to reserve %d of %v; want 0 or more", s.ID, s.Resources.Of(m), m)
		}
	}
	return s, nil
}

func orderToWire(o task.Order) *pb.Order {
	return &pb.Order{
		Id: o.ID.String(), Verb: o.Verb.String(), ConfigHash: hashToWire(o.Config), Resources: resourcesToWire(o.Resources),
		Ports: portsToWire(o.Ports), Gpus: portsToWire(o.GPUs), Reason: text(o.Reason),
	}
}

func orderFromWire(p *pb.Order) (o task.Order, err error) {
	if o.ID, err = task.ParseID(p.GetId()); err != nil {
		return o, err
	}
	if o.Config, err = hashFromWire(p.GetConfigHash()); err != nil {
		return o, err
	}
	if o.Ports, err = portsFromWire(p.GetPorts()); err != nil {
		return o, err
	}
	if o.GPUs, err = gpusFromWire(p.GetGpus()); err != nil {
		return o, err
	}
	for v := task.Run; v <= task.Forget; v++ {
		if v.String() == p.GetVerb() {
			o.Verb = v
		}
	}
	if o.Verb == 0 {
		return o, fault.Invalid.Errorf("order %.40q for task %v; want RUN, STOP or FORGET", p.GetVerb(), o.ID)
	}
	o.Resources, o.Reason = resourcesFromWire(p.GetResources()), p.GetReason()
	return o, nil
}
