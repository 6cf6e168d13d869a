package runtime

import (
	"fmt"
	"os"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/unit"
)

const (
	sampleEvery = time.Second
	diskEvery   = 2 * time.Second
	diskWithin  = 5 * time.Second // one walk of a sandbox takes at most this
	diskShare   = 20              // a walk may take one part in so many of the time
)

// sample looks at what no event tells of, until the task ends.
func (s *supervisor) sample() {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	next := time.Now()
	for {
		var got sampled
		if now := time.Now(); !now.Before(next) {
			got.disk, got.measured = measure(s.box.path(), s.group.procs(), now.Add(diskWithin)), true
			took := time.Since(now)
			next = now.Add(max(diskEvery, took*diskShare))
		}
		if s.group.none() && s.init != nil {
			got.ram, got.cpu = treeUse(s.init.pid)
		}
		s.send(got)
		select {
		case <-t.C:
		case <-s.done:
			return
		}
	}
}

// sampled holds the task to the limits that the kernel does not hold it to.
func (s *supervisor) sampled(e sampled) {
	if s.begun {
		s.suspectOOM()
		if c, err := s.group.counters(); err == nil { // old kernels do not keep the peak
			s.status.MaxRAM = max(s.status.MaxRAM, c.MaxRAM)
		}
	}
	r := s.rec.Config.Task.Resources
	s.status.MaxRAM = max(s.status.MaxRAM, e.ram)
	s.status.CPUNanos = max(s.status.CPUNanos, e.cpu)
	if r.RAM > 0 && e.ram > r.RAM {
		s.step(agent.Violated{Reason: overRAM(r.RAM, "used "+unit.RAM.Format(e.ram))})
	}
	if !e.measured {
		return
	}
	moved := e.disk.bytes/unit.MiB != s.status.Disk/unit.MiB
	s.status.Disk = e.disk.bytes
	if why := overSandbox(e.disk, r.Disk); why != "" {
		s.step(agent.Violated{Reason: why})
	}
	if moved || e.cpu > 0 {
		s.changed()
	}
}

// overSandbox says what a sandbox has more of than it may; empty: nothing.
func overSandbox(use diskUse, limit int64) string {
	switch {
	case use.tooDeep:
		return fmt.Sprintf("sandbox has directories nested deeper than %d", maxDepth)
	case limit > 0 && use.bytes > limit:
		return fmt.Sprintf("disk limit %s exceeded: used %s", unit.Disk.Format(limit), unit.Disk.Format(use.bytes))
	}
	return ""
}

// suspectOOM ends the task for a kill that the sample before saw as well. A kill
// seen for the first time may be of a process whose end is on its way here and
// tells its name.
func (s *supervisor) suspectOOM() {
	if s.oomsSeen > s.ooms {
		s.checkOOM("")
	}
	s.oomsSeen = s.group.oomKills()
}

// checkOOM ends the task when the kernel has killed any of its processes for
// want of memory. process names the suspect, if there is one.
func (s *supervisor) checkOOM(process string) {
	n := s.group.oomKills()
	if n <= s.ooms {
		return
	}
	s.ooms = n
	s.status.OOM = true
	how := "out-of-memory kill inside the task"
	if process != "" {
		how = "out-of-memory kill of process " + process
	}
	s.step(agent.Violated{Reason: overRAM(s.rec.Config.Task.Resources.RAM, how)})
}

// clockTick is the unit of cpu times in /proc: 1/100 s on every Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// treeUse adds up what init and everything below it use, where no cgroup does.
// Children that were waited for are in their parents' figures.
func treeUse(pid int) (ram, cpuNanos int64) {
	top, ok := inside.ReadProcess(pid)
	if !ok {
		return 0, 0
	}
	ticks := top.Ticks
	for _, p := range inside.Descendants(pid, inside.Processes()) {
		ram += p.RSSPages * int64(os.Getpagesize())
		ticks += p.Ticks
	}
	return ram, ticks * int64(clockTick)
}
