package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/task"
)

// mounted returns a world on a small file system of its own.
func mounted(t *testing.T, size string, keep Keep) *world {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("SKIPPED: cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return newWorld(t, func(c *Config) { c.Dir, c.Keep = filepath.Join(dir, "data"), keep })
}

// writes is a task that writes so many MiB of the disk that it was promised.
func (w *world) writes(mib, disk int) Spec {
	s := w.spec(fmt.Sprintf("dd if=/dev/zero of=x bs=1M count=%d", mib))
	s.Config.Task.Resources.Disk = int64(disk) << 20
	return s
}

func (w *world) forget(id task.ID) {
	w.t.Helper()
	if err := w.r.Forget(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) kept(id task.ID) bool { return !missing(w.r.endedDir(id)) }

// A task gets the disk that it was promised, whatever ended ones have left.
func TestRoomForNewTasks(t *testing.T) {
	w := mounted(t, "64m", Keep{Age: time.Hour, Bytes: 1 << 40, Margin: 1 << 20})
	var ids []task.ID
	for i := range 8 {
		id := w.start(w.writes(20, 24))
		if got := w.end(id); got.State != task.Finished {
			t.Fatalf("task %d: got %v %q; want FINISHED", i, got.State, got.Reason)
		}
		w.forget(id)
		ids = append(ids, id)
	}
	if !w.kept(ids[7]) || !w.kept(ids[6]) || w.kept(ids[5]) {
		t.Errorf("kept: the last %v, the one before %v, the third last %v; want what there is room for", w.kept(ids[7]), w.kept(ids[6]), w.kept(ids[5]))
	}
}

// What is not forgotten is never removed for want of room: the leader does not
// know yet how it ended. As soon as it does, the room is made.
func TestRoomAfterForget(t *testing.T) {
	w := mounted(t, "64m", Keep{Age: time.Hour, Bytes: 1 << 40})
	ended := w.start(w.writes(30, 31))
	w.end(ended)
	s := w.spec("exec sleep 1000") // it starts when the wait for the other's end to be taken note of is over
	s.Config.Task.Resources.Disk = 48 << 20
	live := w.start(s)
	w.running(live)
	if c, err := w.r.MakeRoom(t.Context(), time.Now()); err != nil || c.Removed != 0 {
		t.Errorf("got %+v, %v; want nothing removed", c, err)
	}
	w.status(ended)
	w.forget(ended)
	for deadline := time.Now().Add(patience); !missing(w.r.endedDir(ended)) || !missing(w.r.endedDir(ended)+goingMark); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the ended task's files are kept; want them gone for the live one's")
		}
	}
}

// Where others than tasks fill the disk a start waits for nobody.
func TestNoRoomToMake(t *testing.T) {
	w := mounted(t, "32m", Keep{Age: time.Hour, Bytes: 1 << 40})
	if err := os.WriteFile(filepath.Join(filepath.Dir(w.cfg.Dir), "foreign"), make([]byte, 24<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := w.end(w.start(w.writes(1, 16))); got.State != task.Finished {
		t.Errorf("got %v %q; want FINISHED", got.State, got.Reason)
	}
}

// Of a disk that several agents share each keeps to its share, so that no
// task's room is taken by what another agent's have left.
func TestRoomWithinShare(t *testing.T) {
	w := mounted(t, "128m", Keep{Age: time.Hour, Bytes: 1 << 40, Share: 48 << 20})
	first := w.start(w.writes(20, 24))
	w.end(first)
	w.forget(first)
	second := w.start(w.writes(20, 24))
	w.end(second)
	w.forget(second)
	if !w.kept(first) || !w.kept(second) {
		t.Error("something is gone; want both kept: there was room in the share")
	}
	w.end(w.start(w.writes(1, 24)))
	if w.kept(first) || !w.kept(second) {
		t.Errorf("kept: the first %v, the second %v; want the first to have made room", w.kept(first), w.kept(second))
	}
}

// A removal that was cut off goes on, however young the task.
func TestRemovalGoesOn(t *testing.T) {
	w := mounted(t, "64m", Keep{Age: time.Hour, Bytes: 1 << 40})
	id := w.start(w.writes(1, 24))
	w.end(id)
	w.forget(id)
	dir := w.r.endedDir(id)
	if err := os.Rename(dir, dir+goingMark); err != nil {
		t.Fatal(err)
	}
	if c, err := w.r.GC(t.Context(), time.Now()); err != nil || c.Removed != 1 {
		t.Errorf("got %+v, %v; want one removed", c, err)
	}
	if !missing(dir + goingMark) {
		t.Error("it is there")
	}
}

// A task that ended by itself has kept to its disk, or it failed, also when no
// sample saw it.
func TestDiskLimitAtTheEnd(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("head -c 20m /dev/zero > big")
	s.Config.Task.Resources.Disk = 10 << 20
	got := w.end(w.start(s))
	if want := "disk limit 10 MiB exceeded: used "; got.State != task.Failed || !strings.HasPrefix(got.Reason, want) {
		t.Errorf("got %v %q; want FAILED %q", got.State, got.Reason, want)
	}
}

func TestJudged(t *testing.T) {
	over := diskUse{bytes: 20 << 20}
	failed := agent.End{State: task.Failed, Reason: "process p0 failed"}
	killed := agent.End{State: task.Killed, Reason: "stopped"}
	finished := agent.End{State: task.Finished}
	for _, c := range []struct {
		name  string
		end   agent.End
		use   diskUse
		limit int64
		want  agent.End
	}{
		{"within its disk", finished, over, 20 << 20, finished},
		{"over it", finished, over, 10 << 20, agent.End{State: task.Failed, Reason: "disk limit 10 MiB exceeded: used 20 MiB"}},
		{"no limit", finished, over, 0, finished},
		{"nested", finished, diskUse{tooDeep: true}, 0, agent.End{State: task.Failed, Reason: "sandbox has directories nested deeper than 200"}},
		{"failed by itself", failed, over, 10 << 20, failed},
		{"stopped", killed, over, 10 << 20, killed},
	} {
		if d := cmp.Diff(c.want, judged(c.end, c.use, c.limit)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}
