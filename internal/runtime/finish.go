package runtime

import (
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/task"
)

const (
	sweepWithin = 10 * time.Second // for what is left in the cgroup to die
	drainWithin = 2 * time.Second  // for the last output to be written
	groupWithin = 5 * time.Second  // for the empty cgroup to be removed
	exitWithin  = 10 * time.Minute // for the end to get onto a full disk
	lostWithin  = 3 * time.Second  // for a directory that is not there to come back
)

// finish ends everything of the task, and only then writes down how it ended.
func (s *supervisor) finish() error {
	end := *s.ended
	s.init.end()
	s.grouping.Wait()                   // else what is removed here is made anew
	for !s.group.killAll(sweepWithin) { // while one lives the task has not ended
		s.log.Error("processes are left that do not die", "pids", s.group.procs())
	}
	s.doom.Off()
	s.cancel()
	s.drain()
	s.count()
	if err := s.group.remove(groupWithin); err != nil {
		s.log.Warn("cgroup is left", "error", err)
	}
	st := &s.status
	use := measure(s.box.path(), nil, time.Now().Add(diskWithin))
	st.Disk = use.bytes
	end = judged(end, use, s.rec.Config.Task.Resources.Disk)
	st.Ended, st.EndedAt = true, time.Now()
	st.set(end.State, end.Reason)
	s.settleExit(end.State)
	for _, p := range s.procs {
		p.Live = false
	}
	s.collect()
	if err := s.writeExit(); err != nil {
		return err
	}
	s.lines.publish(s.status)
	select {
	case <-s.lines.close():
	case <-time.After(time.Second):
	}
	return nil
}

// judged has a task fail that ended by itself with more in its sandbox than it
// may have: it came there after the last sample. A task that was stopped stays
// stopped, and one that failed has its reason.
func judged(end agent.End, use diskUse, limit int64) agent.End {
	if why := overSandbox(use, limit); why != "" && end.State == task.Finished {
		return agent.End{State: task.Failed, Reason: why}
	}
	return end
}

// settleExit says how the process that decided the end ended. Where a process
// died with its init, nobody knows.
func (s *supervisor) settleExit(state task.State) {
	st := &s.status
	st.Known = len(s.procs) > 0
	for _, p := range s.procs {
		if p.Reason != "" {
			st.Known = false
		}
	}
	if s.decisive != nil && state != task.Finished {
		st.ExitCode, st.Signal = s.decisive.ExitCode, s.decisive.Signal
	}
}

// drain waits for the last output. All writers are dead, so it comes at once.
func (s *supervisor) drain() {
	done := make(chan struct{})
	go func() {
		s.pumps.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainWithin):
		s.log.Warn("output is lost: a pipe is still open")
	}
}

// count takes the final counters.
func (s *supervisor) count() {
	if c, err := s.group.counters(); err == nil {
		s.status.CPUNanos, s.status.MaxRAM = c.CPUNanos, max(c.MaxRAM, s.status.MaxRAM)
	}
	if s.group.oomKills() > s.ooms {
		s.status.OOM = true
	}
}

// writeExit makes the end durable. On a disk that stays full it tries for ten
// minutes. When the directory was lost, nobody who comes later asks: whoever
// listens now is told.
func (s *supervisor) writeExit() error {
	began := time.Now()
	for {
		err := s.write(func(dir string) error { return writeExit(dir, s.status) })
		if err == nil || time.Since(began) > exitWithin {
			return err
		}
		if s.lost() && time.Since(began) > lostWithin {
			s.log.Warn("the directory was lost, and with it where the end is written", "error", err)
			return nil
		}
		s.log.Error("the end cannot be written", "error", err)
		time.Sleep(time.Second)
	}
}
