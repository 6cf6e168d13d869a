package runtime

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/task"
)

// A lastWord is the part of a supervisor that counts here: it holds the lock,
// and writes the end of its task before it lets go.
type lastWord struct {
	dir  string
	lock *os.File
	end  []byte
}

// say ends the task. A supervisor syncs the file too, which only takes longer.
func (l lastWord) say() error {
	err := os.WriteFile(filepath.Join(l.dir, exitFile), l.end, fileMode)
	if err2 := l.lock.Close(); err == nil {
		err = err2
	}
	return err
}

// leave makes the directory of a task that runs, with its supervisor.
func (w *world) leave(id task.ID) lastWord {
	w.t.Helper()
	spec := w.spec("true")
	spec.ID = id
	rec, err := w.r.record(spec)
	if err != nil {
		w.t.Fatal(err)
	}
	l := lastWord{dir: w.r.liveDir(id)}
	st := Status{Version: version, ID: id, Task: id.String(), Boot: w.r.boot, Supervisor: os.Getpid(), SupervisorStart: 1}
	st.set(task.Running, "")
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	for name, v := range map[string]any{taskFile: rec, stateFile: st} {
		if err := writeJSON(filepath.Join(l.dir, name), v); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(l.dir, exitFile), nil, fileMode); err != nil {
		w.t.Fatal(err)
	}
	if l.lock, err = takeLock(l.dir); err != nil {
		w.t.Fatal(err)
	}
	st.set(task.Finished, "")
	st.Ended, st.Known = true, true
	if l.end, err = json.Marshal(st); err != nil {
		w.t.Fatal(err)
	}
	return l
}

// An agent that starts while tasks end tells every end as it was: each
// supervisor here says its last word in the moments in which the agent looks
// at its task, and not one of them is taken for dead without one.
func TestEndWhileAdopted(t *testing.T) {
	w := newWorld(t)
	const tasks, within = 900, 80 * time.Microsecond
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	ids, words := make([]task.ID, tasks), make(map[int32]lastWord, tasks)
	for i := range ids {
		ids[i] = w.id()
		l := w.leave(ids[i])
		wd, err := unix.InotifyAddWatch(watch, filepath.Join(l.dir, taskFile), unix.IN_OPEN|unix.IN_ONESHOT)
		if err != nil {
			t.Fatal(err)
		}
		words[int32(wd)] = l
	}
	said := make(chan error, 1)
	go func() {
		for b := make([]byte, unix.SizeofInotifyEvent); len(words) > 0; {
			n, err := unix.Read(watch, b)
			if err != nil {
				said <- err
				return
			}
			e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
			l, ok := words[e.Wd]
			if n < len(b) || !ok || e.Mask&unix.IN_OPEN == 0 {
				continue
			}
			delete(words, e.Wd)
			for until := time.Now().Add(rand.N(within)); time.Now().Before(until); {
			}
			if err := l.say(); err != nil {
				said <- err
				return
			}
		}
		said <- nil
	}()
	w.r.Close()
	w.open()
	if err := <-said; err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if got := w.end(id); got.State != task.Finished || got.Reason != "" || !got.Known {
			t.Errorf("%v: got %s %q, known %v; want what its supervisor wrote", id, got.Name, got.Reason, got.Known)
		}
	}
}
