package state

import (
	"iter"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
)

// consumed is what a role reserves: kept up with every change of a slot, so that
// nobody scans the cluster to know it. A role that reserves nothing has none.
type consumed struct {
	role string
	sum  tenant.Consumption
}

// Quota returns the quota that a role has of its own.
func (s *Snapshot) Quota(role string) (Quota, bool) { return s.quotas.Get(Quota{Role: role}) }

// QuotaFor returns the quota that holds for a role: its own, or that of every
// role. Without either nothing bounds it.
func (s *Snapshot) QuotaFor(role string) (Quota, bool) {
	if q, ok := s.Quota(role); ok {
		return q, true
	}
	return s.Quota(tenant.EveryRole)
}

// Quotas yields every quota from that of a role on, in order of roles.
func (s *Snapshot) Quotas(from string) iter.Seq[Quota] {
	return func(yield func(Quota) bool) { s.quotas.AscendGreaterOrEqual(Quota{Role: from}, yield) }
}

// Consumed returns what a role reserves.
func (s *Snapshot) Consumed(role string) tenant.Consumption {
	c, _ := s.consumed.Get(consumed{role: role})
	return c.sum
}

// Consumers yields every role from one on that reserves something, with what
// it reserves, in order.
func (s *Snapshot) Consumers(from string) iter.Seq2[string, tenant.Consumption] {
	return func(yield func(string, tenant.Consumption) bool) {
		s.consumed.AscendGreaterOrEqual(consumed{role: from}, func(c consumed) bool { return yield(c.role, c.sum) })
	}
}

// Admit reports why j may not be written and all of its instances started: an
// error of kind Exhausted if its role would reserve more than its quota, or more
// than can be counted.
func (s *Snapshot) Admit(j job.Job) error {
	role := j.Key.Role()
	before := s.Consumed(role)
	if err := before.Counts(role, j.Config.Task.Resources.Times(int64(j.Instances.Len()))); err != nil {
		return err
	}
	q, bounded := s.QuotaFor(role)
	if !bounded {
		return nil
	}
	after := before.Sub(s.jobConsumes(j.Key)).Add(s.sum(j.Key, j.Instances, claimOf(&j.Config), nil))
	return q.Admit(role, before, after)
}

// claimOf returns what one instance of a config reserves.
func claimOf(c *job.Config) tenant.Claim {
	return tenant.Claim{Class: tenant.ClassOf(c.Tier == job.Preferred, c.Dedicated()), Resources: c.Task.Resources}
}

// claimed returns what a live task reserves.
func (s *Snapshot) claimed(t *Task) tenant.Claim {
	c := tenant.Claim{Class: tenant.NonProdShared, Resources: t.Resources}
	if cfg, ok := s.Config(t.Config); ok {
		c.Class = claimOf(cfg).Class
	}
	return c
}

// A slot reserves what its job wants for it, from when the job is written until
// it is done for good, and what its task holds, until that has ended.

// slotConsumes returns what one slot reserves.
func (s *Snapshot) slotConsumes(at Slot) (c tenant.Consumption) {
	var wanted, held tenant.Claim
	in, exists := s.Instance(at)
	if j, ok := s.Job(at.Job); ok && j.Instances.Has(at.N) && (!exists || in.Open || in.Live) {
		if cfg, ok := s.Config(j.Config); ok {
			wanted = claimOf(cfg)
			held.Class = wanted.Class
		}
	}
	for t := range s.TasksIn(at) {
		held = s.claimed(&t)
	}
	c.Take(wanted, held)
	return c
}

// jobConsumes returns what all slots of a job reserve.
func (s *Snapshot) jobConsumes(k job.Key) tenant.Consumption {
	j, ok := s.Job(k)
	if !ok {
		return s.sum(k, nil, tenant.Claim{}, nil)
	}
	cfg, ok := s.Config(j.Config)
	if !ok {
		return s.sum(k, nil, tenant.Claim{}, nil)
	}
	var done []int32
	for in := range s.Instances(k) {
		if !in.Open && !in.Live {
			done = append(done, in.N)
		}
	}
	return s.sum(k, j.Instances, claimOf(cfg), done)
}

// sum returns what the slots of a job reserve if instances, but those that are
// done, want one claim each. The numbers in done are in order.
func (s *Snapshot) sum(k job.Key, instances job.Ranges, one tenant.Claim, done []int32) (c tenant.Consumption) {
	type holding struct {
		n     int32
		claim tenant.Claim
	}
	var live []holding
	for t := range s.TasksOf(k) {
		live = append(live, holding{t.ID.Instance, s.claimed(&t)})
	}
	only := func(h holding) { c.Take(tenant.Claim{Class: h.claim.Class}, h.claim) }
	for n := range instances.All() {
		for len(live) > 0 && live[0].n < n {
			only(live[0])
			live = live[1:]
		}
		for len(done) > 0 && done[0] < n {
			done = done[1:]
		}
		wanted := one
		if len(done) > 0 && done[0] == n {
			wanted = tenant.Claim{}
		}
		held := tenant.Claim{Class: wanted.Class}
		if len(live) > 0 && live[0].n == n {
			held = live[0].claim
			live = live[1:]
		}
		c.Take(wanted, held)
	}
	for _, h := range live {
		only(h)
	}
	return c
}

// consume takes into the account of a role that something of it reserved was
// and reserves is.
func (s *Snapshot) consume(role string, was, is tenant.Consumption) {
	if was == is {
		return
	}
	c := consumed{role, s.Consumed(role).Sub(was).Add(is)}
	if c.sum == (tenant.Consumption{}) {
		s.consumed.Delete(c)
		return
	}
	s.consumed.ReplaceOrInsert(c)
}

// slotMoves is called before a slot changes; what it returns, afterwards.
func (s *Snapshot) slotMoves(at Slot) func() {
	was := s.slotConsumes(at)
	return func() { s.consume(at.Job.Role(), was, s.slotConsumes(at)) }
}

// jobMoves is slotMoves for all slots of a job.
func (s *Snapshot) jobMoves(k job.Key) func() {
	was := s.jobConsumes(k)
	return func() { s.consume(k.Role(), was, s.jobConsumes(k)) }
}

// consumeAll works out what every role reserves. From then on it is kept up
// step by step.
func (s *Snapshot) consumeAll() {
	sums := map[string]tenant.Consumption{}
	add := func(k job.Key) { sums[k.Role()] = sums[k.Role()].Add(s.jobConsumes(k)) }
	for j := range s.Jobs("") {
		add(j.Key)
	}
	for k := range s.orphaned() {
		add(k)
	}
	for role, sum := range sums {
		s.consume(role, tenant.Consumption{}, sum)
	}
}

// orphaned yields the keys of jobs that are gone while tasks of theirs live, in
// order.
func (s *Snapshot) orphaned() iter.Seq[job.Key] {
	return func(yield func(job.Key) bool) {
		for from, more := (task.ID{}), true; more; {
			more = false
			s.tasks.from(from, func(task.ID) bool { return true }, func(t Task) bool {
				from, more = task.ID{Job: t.ID.Job + "\x00"}, true // the first key after this one
				_, wanted := s.Job(t.ID.Job)
				if !wanted && !yield(t.ID.Job) {
					more = false
				}
				return false
			})
		}
	}
}

// PutQuota writes a quota.
type PutQuota struct {
	Role  string
	Quota tenant.Quota
	Base  Rev
	By    string
}

// DropQuota takes a role's own quota away.
type DropQuota struct {
	Role string
	Base Rev
	By   string
}

func (c PutQuota) apply(d *Draft) error {
	row, exists := d.snap.Quota(c.Role)
	if err := guard("the quota of role", c.Role, exists, row.Rev, c.Base); err != nil {
		return err
	}
	row.Role, row.Quota, row.By = c.Role, c.Quota, c.By
	row.Updated, row.Rev = d.snap.At, d.snap.Rev
	d.snap.quotas.ReplaceOrInsert(row)
	d.dirty[rowKey{QuotaTable, QuotaKey(c.Role)}] = true
	d.record(Record{Kind: QuotaRecord, By: c.By, Quota: &QuotaChange{Quota: row}})
	return nil
}

func (c DropQuota) apply(d *Draft) error {
	old, exists := d.snap.Quota(c.Role)
	if err := present("the quota of role", c.Role, exists, old.Rev, c.Base); err != nil {
		return err
	}
	d.snap.quotas.Delete(old)
	d.dirty[rowKey{QuotaTable, QuotaKey(c.Role)}] = true
	d.record(Record{Kind: QuotaRecord, By: c.By, Quota: &QuotaChange{Quota: old, Dropped: true}})
	return nil
}
