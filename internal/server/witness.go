package server

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// witness keeps, outside the data directory, where the database stood when its
// leader committed last. A server that is started again soon, on this computer
// and before its next boot, sees by it that its database is no old copy: nobody
// has to be asked first. What does not match in every word proves nothing, and
// then the machines are asked as ever. See docs/adr/0022-witness.md.
type witness struct {
	run      string // where the witnesses of this user are; empty: nowhere
	database string

	path  string
	file  *os.File  // nil: nothing is written down
	said  testimony // Boot is empty: nothing can be said
	noted time.Time
	wide  int // bytes in the file
}

// testimony is what the file holds.
type testimony struct {
	Database string        `json:"database"`
	Device   uint64        `json:"device"` // of the database's file
	Inode    uint64        `json:"inode"`
	Boot     string        `json:"boot"`
	Rev      state.Rev     `json:"rev"`
	Seq      state.Seq     `json:"seq"`
	At       int64         `json:"at"`
	Awake    time.Duration `json:"awake"` // of the computer since its boot, when it was written
}

const (
	witnessFile = "+server.json" // beside the directories of machines, none of which is called so
	// Longer than it takes to start a killed server again, and shorter than it
	// takes people to bring a cluster up elsewhere and to come back.
	goodFor = time.Minute
	maxDead = 1000 // witnesses that are looked at for being left behind
)

// runDir is where the witnesses of this user's servers are; empty: nowhere.
func runDir() string {
	if os.Geteuid() == 0 {
		return "/run/covey"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) { //nolint:forbidigo // the user's, as the runtime directory of the system is root's
		return filepath.Join(dir, "covey")
	}
	return ""
}

// find says which database this is, and where its testimony is. It is false
// when nothing can be said of it.
func (w *witness) find(uid string) bool {
	if w.run == "" || uid == "" || strings.ContainsAny(uid, "/.") {
		return false
	}
	w.path = filepath.Join(w.run, uid, witnessFile)
	var err error
	w.said, err = testify(w.database)
	return err == nil
}

// saw reports whether s is what the leader of this database committed last.
func (w *witness) saw(s *state.Snapshot) bool {
	if !w.find(s.Cluster.UID) {
		return false
	}
	now := w.said
	data, err := os.ReadFile(w.path)
	var was testimony
	if err != nil || json.Unmarshal(data, &was) != nil {
		return false
	}
	head := testimony{now.Database, now.Device, now.Inode, now.Boot, s.Rev, s.Seq, int64(s.At), was.Awake}
	// The commit whose witness was killed may be there, and nothing else.
	next := was.Rev+1 == head.Rev && was.Seq <= head.Seq && was.At < head.At
	if next {
		was.Rev, was.Seq, was.At = head.Rev, head.Seq, head.At
	}
	return was == head && now.Awake >= was.Awake && now.Awake-was.Awake <= goodFor
}

// forget removes what was written down: what this leader does until it has
// heard the machines proves nothing.
func (w *witness) forget() {
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
	if w.path != "" {
		_ = os.Remove(w.path) // a testimony that stays matches nothing after the next commit
	}
}

// note writes down where the database stands.
func (w *witness) note(s *state.Snapshot) error {
	if w.path == "" { // a cluster that was born a moment ago
		w.find(s.Cluster.UID)
	}
	if w.said.Boot == "" || w.file != nil && w.said.Rev == s.Rev && time.Since(w.noted) < renewal {
		return nil
	}
	w.noted = time.Now()
	if w.file == nil {
		if err := w.create(); err != nil {
			w.said.Boot = ""
			return err
		}
	}
	var err error
	w.said.Rev, w.said.Seq, w.said.At = s.Rev, s.Seq, int64(s.At)
	if w.said.Awake, err = awake(); err == nil {
		err = w.write()
	}
	if err != nil {
		w.forget()
		w.said.Boot = ""
	}
	return err
}

// write replaces the file's text at once, in place: a commit must not wait for
// the making of files. The rest of a longer one is blank.
func (w *witness) write() error {
	data, err := json.Marshal(w.said)
	if err != nil {
		return fault.Internal.Errorf("%w", err)
	}
	data = append(data, bytes.Repeat([]byte{' '}, max(0, w.wide-len(data)))...)
	w.wide = len(data)
	_, err = w.file.WriteAt(data, 0)
	return err
}

func (w *witness) create() (err error) {
	if err = os.MkdirAll(filepath.Dir(w.path), 0o700); err != nil {
		return err
	}
	_ = os.Remove(w.path)
	w.wide = 0
	w.file, err = os.OpenFile(w.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	return err
}

// tidy removes the witnesses of databases that are no more.
func (w *witness) tidy() {
	found, _ := filepath.Glob(filepath.Join(w.run, "*", witnessFile))
	for _, path := range found[:min(len(found), maxDead)] {
		data, err := os.ReadFile(path) //nolint:gosec // one of ours
		var of testimony
		if err != nil || json.Unmarshal(data, &of) != nil || of.Database == "" {
			continue
		}
		if _, err = os.Lstat(of.Database); os.IsNotExist(err) {
			_ = os.Remove(path)
			_ = os.Remove(filepath.Dir(path)) // if nothing else is there
		}
	}
}

// vouch writes down where the database stands, once the machines have been
// heard or need not be.
func (l *looper) vouch(ctx context.Context) {
	if l.shared != nil || !l.loop.Settled() {
		return
	}
	if err := l.witness.note(l.loop.Snapshot()); err != nil {
		l.log.WarnContext(ctx, "where the database stands cannot be written down outside of it: after a restart nothing is placed until the machines have been heard, for 3 s", "error", err)
	}
}

// testify says which database this is, and when.
func testify(database string) (t testimony, err error) {
	var st unix.Stat_t
	if err = unix.Stat(database, &st); err != nil {
		return t, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return t, err
	}
	t = testimony{Database: database, Device: st.Dev, Inode: st.Ino, Boot: strings.TrimSpace(string(boot))}
	t.Awake, err = awake()
	return t, err
}

// awake is how long ago this computer booted, sleep included.
func awake() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano()), err
}
