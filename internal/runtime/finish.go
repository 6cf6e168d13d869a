package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/task"
	"golang.org/x/sys/unix"
)

const (
	sweepWithin = 10 * time.Second // for what is left in the cgroup to die
	drainWithin = 2 * time.Second  // for the last output to be written
	groupWithin = 5 * time.Second  // for the empty cgroup to be removed
	exitWithin  = 10 * time.Minute // for the end to get onto a full disk
	exitSpace   = 256 << 10        // bytes kept for it from the start
)

// finish ends everything of the task, and only then writes down how it ended.
func (s *supervisor) finish() error {
	end := *s.ended
	s.init.end()
	if !s.group.killAll(sweepWithin) {
		s.log.Error("processes are left that do not die", "pids", s.group.procs())
	}
	s.cancel()
	s.drain()
	s.count()
	if err := s.group.remove(groupWithin); err != nil {
		s.log.Warn("cgroup is left", "error", err)
	}
	st := &s.status
	st.Disk = measure(s.plan.Sandbox, nil, time.Now().Add(diskWithin)).bytes
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

// reserveExit takes the space that the end will need while there is some: a
// task that fills the disk must not keep its own end from being written.
func (s *supervisor) reserveExit() {
	f, err := os.OpenFile(filepath.Join(s.dir, exitFile+".new"), os.O_CREATE|os.O_WRONLY, durableFile)
	if err != nil {
		s.log.Warn("no space reserved", "error", err)
		return
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, exitSpace); err != nil {
		s.log.Warn("no space reserved", "error", err)
	}
	_ = f.Close()
}

// writeExit makes the end durable. On a disk that stays full it tries for ten
// minutes.
func (s *supervisor) writeExit() error {
	b, err := json.Marshal(s.status)
	if err != nil {
		return fault.Internal.Errorf("encode end: %w", err)
	}
	deadline := time.Now().Add(exitWithin)
	for {
		err := s.replaceExit(b)
		if err == nil {
			return nil
		}
		s.log.Error("the end cannot be written", "error", err)
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Second)
	}
}

func (s *supervisor) replaceExit(b []byte) error {
	to := filepath.Join(s.dir, exitFile)
	f, err := os.OpenFile(to+".new", os.O_CREATE|os.O_WRONLY, durableFile) //nolint:gosec // a path of our own making
	if err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fault.Unavailable.Errorf("write %s: %w", to, err)
	}
	return nil
}
