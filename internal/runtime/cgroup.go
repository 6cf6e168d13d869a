package runtime

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/runtime/inside"
)

// mounts says where the cgroup hierarchies are. A controller is taken from
// version 1 where that has it, else from version 2; machines that have both
// (hybrid) give a version 2 group as well, for its cgroup.kill.
type mounts struct {
	v1 map[string]string // controller to mount point
	v2 string            // mount point; empty when there is none
	// controllers that v2 can give to groups
	v2has []string
}

// controllers are those that a task is held by.
var controllers = [...]string{"cpu", "cpuacct", "memory", "pids"}

// findMounts reads the hierarchies out of the text of /proc/self/mountinfo.
func findMounts(mountinfo string) mounts {
	m := mounts{v1: map[string]string{}}
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		sep := slices.Index(f, "-")
		if sep < 5 || len(f) < sep+4 {
			continue
		}
		point, kind, options := f[4], f[sep+1], strings.Split(f[sep+3], ",")
		switch kind {
		case "cgroup2":
			m.v2 = point
		case "cgroup":
			for _, o := range options {
				if slices.Contains(controllers[:], o) || o == "freezer" {
					m.v1[o] = point
				}
			}
		}
	}
	if m.v2 != "" {
		b, err := os.ReadFile(filepath.Join(m.v2, "cgroup.controllers"))
		if err == nil {
			m.v2has = strings.Fields(string(b))
		}
	}
	return m
}

// enable turns on at the root of version 2 what it can give to groups, and
// forgets what it does not give after all. Processes in the root of a container
// forbid it; memory goes first, since cpu alone would be granted there and make
// groups that no process can enter.
func (m *mounts) enable() {
	if m.v2 == "" {
		return
	}
	file := filepath.Join(m.v2, "cgroup.subtree_control")
	for _, c := range []string{"memory", "cpu", "pids"} {
		if m.v1[c] != "" || !slices.Contains(m.v2has, c) {
			continue
		}
		if errors.Is(put(file, "+"+c), unix.EBUSY) {
			break
		}
	}
	b, err := os.ReadFile(file) //nolint:gosec // the kernel's own file
	if err != nil {
		b = nil
	}
	m.v2has = strings.Fields(string(b))
}

// has reports whether controller c can be had at all.
func (m mounts) has(c string) bool {
	if c == "cpuacct" && m.v2 != "" {
		return true // cpu.stat needs no controller
	}
	return m.v1[c] != "" || slices.Contains(m.v2has, c)
}

// groups makes the cgroups of one [Runtime].
type groups struct {
	m    mounts
	root string // empty: no cgroups
}

func newGroups(m mounts, root string) groups {
	if len(m.v1) == 0 && m.v2 == "" {
		root = ""
	}
	return groups{m, root}
}

// overheadName is the group of all supervisors. No task's is called so: an
// escaped id holds '+'.
const overheadName = "supervisors"

// off reports whether there are no cgroups.
func (g groups) off() bool { return g.root == "" }

func (g groups) of(name string) group {
	if g.root == "" {
		return group{}
	}
	return group{m: g.m, path: filepath.Join(g.root, name)}
}

// prepare makes the root and hands the controllers of version 2 down to it.
func (g groups) prepare() error {
	if g.root == "" {
		return nil
	}
	top := group{m: g.m, path: g.root}
	if err := top.mkdir(); err != nil {
		return err
	}
	if g.m.v2 != "" {
		g.delegate()
	}
	return g.of(overheadName).mkdir()
}

// dismantle removes what prepare has made, as far as nobody is in it. The last
// supervisor is waited for: it tells its task's end just before its own.
func (g groups) dismantle() {
	if g.off() || g.of(overheadName).remove(time.Second) != nil {
		return
	}
	for at := g.root; at != "/"; at = filepath.Dir(at) {
		if (group{m: g.m, path: at}).remove(0) != nil {
			return
		}
	}
}

func (g groups) delegate() {
	at := g.m.v2
	for part := range strings.SplitSeq(strings.TrimPrefix(g.root, "/"), "/") {
		for _, c := range []string{"cpu", "memory", "pids"} {
			if g.m.v1[c] == "" && slices.Contains(g.m.v2has, c) {
				_ = put(filepath.Join(at, "cgroup.subtree_control"), "+"+c) // its absence shows when a limit is set
			}
		}
		at = filepath.Join(at, part)
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if g.m.v1[c] == "" && slices.Contains(g.m.v2has, c) {
			_ = put(filepath.Join(at, "cgroup.subtree_control"), "+"+c)
		}
	}
}

// names lists the groups of tasks that exist.
func (g groups) names() []string {
	if g.root == "" {
		return nil
	}
	var out []string
	for _, d := range (group{m: g.m, path: g.root}).dirs() {
		entries, err := os.ReadDir(d)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && strings.Contains(e.Name(), "+") && !slices.Contains(out, e.Name()) {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// A group is one cgroup in every hierarchy that is used. The zero group is
// none: its counters fail and the rest does nothing.
type group struct {
	m    mounts
	path string
}

func (g group) none() bool { return g.path == "" }

// dir returns the group's directory for a controller, and whether that is of
// version 2.
func (g group) dir(controller string) (string, bool) {
	if at := g.m.v1[controller]; at != "" {
		return filepath.Join(at, g.path), false
	}
	return filepath.Join(g.m.v2, g.path), true
}

// dirs lists the group's directories, each once.
func (g group) dirs() []string {
	if g.none() {
		return nil
	}
	var out []string
	add := func(d string) {
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	for _, c := range controllers {
		if at := g.m.v1[c]; at != "" {
			add(filepath.Join(at, g.path))
		}
	}
	if g.m.v2 != "" {
		add(filepath.Join(g.m.v2, g.path))
	} else if at := g.m.v1["freezer"]; at != "" {
		add(filepath.Join(at, g.path))
	}
	return out
}

func (g group) mkdir() error {
	for _, d := range g.dirs() {
		var err error
		for range 3 { // another runtime that ends may be removing a common parent just now
			if err = os.MkdirAll(d, 0o755); !errors.Is(err, fs.ErrNotExist) { //nolint:gosec // cgroups are readable by all
				break
			}
		}
		if err != nil {
			return fault.Unavailable.Errorf("cgroup %s cannot be made: %w", d, err)
		}
	}
	return nil
}

// limits are what a task's group holds it to.
type limits struct {
	cpuMilli int64 // thousandths of a core
	ram      int64 // bytes
	pids     int64
}

// cfsPeriod is the window within which cpu is rationed, in microseconds.
const cfsPeriod = 100_000

// limit sets the limits. The cpu a task has reserved is also the most it gets,
// so that one day's spare cycles do not hide the next day's shortage; shares
// are set as well, for machines that are overcommitted.
func (g group) limit(l limits) error {
	quota := max(l.cpuMilli*cfsPeriod/1000, 1000) // the kernel's least
	var todo [][2]string
	add := func(controller, v1file, v1value, v2file, v2value string) {
		if !g.m.has(controller) {
			return
		}
		d, v2 := g.dir(controller)
		if v2 {
			v1file, v1value = v2file, v2value
		}
		if v1file == "" {
			return
		}
		todo = append(todo, [2]string{filepath.Join(d, v1file), v1value})
	}
	if l.cpuMilli > 0 {
		add("cpu", "cpu.cfs_period_us", strconv.Itoa(cfsPeriod), "cpu.max", strconv.FormatInt(quota, 10)+" "+strconv.Itoa(cfsPeriod))
		add("cpu", "cpu.cfs_quota_us", strconv.FormatInt(quota, 10), "", "")
		add("cpu", "cpu.shares", strconv.FormatInt(min(max(l.cpuMilli*1024/1000, 2), 262_144), 10), "cpu.weight", strconv.FormatInt(min(max(l.cpuMilli/10, 1), 10_000), 10))
	}
	if l.ram > 0 {
		add("memory", "memory.limit_in_bytes", strconv.FormatInt(l.ram, 10), "memory.max", strconv.FormatInt(l.ram, 10))
	}
	if l.pids > 0 {
		add("pids", "pids.max", strconv.FormatInt(l.pids, 10), "pids.max", strconv.FormatInt(l.pids, 10))
	}
	for _, t := range todo {
		if err := put(t[0], t[1]); err != nil {
			return fault.Unavailable.Errorf("limit %s: %w", t[0], err)
		}
	}
	if l.ram > 0 && g.m.has("memory") { // swap counts as memory where the kernel can say so
		d, v2 := g.dir("memory")
		if v2 {
			_ = put(filepath.Join(d, "memory.swap.max"), "0")
			_ = put(filepath.Join(d, "memory.oom.group"), "0")
		} else {
			_ = put(filepath.Join(d, "memory.memsw.limit_in_bytes"), strconv.FormatInt(l.ram, 10))
		}
	}
	return nil
}

// add moves a process into the group, with all its threads.
func (g group) add(pid int) error {
	for _, d := range g.dirs() {
		if err := put(filepath.Join(d, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fault.Unavailable.Errorf("process %d into cgroup %s: %w", pid, d, err)
		}
	}
	return nil
}

// warmFor bounds how long [group.warm] asks, and warmEvery is how often.
const (
	warmFor   = 60 * time.Millisecond
	warmEvery = 4 * time.Millisecond
)

// warm makes the next move of a process between groups fast, until done. The
// kernel lets all processors pass a quiet point (5 to 20 ms) before the first
// move, but not before one that follows within some milliseconds. So while a
// task is being set up its supervisor is moved to where it is already; each of
// these moves but the first takes 30 microseconds.
func (g group) warm(pid int, done <-chan struct{}) {
	dirs := g.dirs()
	if len(dirs) == 0 {
		return
	}
	t := time.NewTicker(warmEvery)
	defer t.Stop()
	for {
		if put(filepath.Join(dirs[0], "cgroup.procs"), strconv.Itoa(pid)) != nil {
			return // it has gone
		}
		select {
		case <-t.C:
		case <-done:
			return
		}
	}
}

func put(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0) //nolint:gosec // a path of our own making
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	return err
}

// procs lists the processes in the group, each once, in any hierarchy.
func (g group) procs() []int {
	var out []int
	for _, d := range g.dirs() {
		b, err := os.ReadFile(filepath.Join(d, "cgroup.procs")) //nolint:gosec // a path of our own making
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 && !slices.Contains(out, pid) {
				out = append(out, pid)
			}
		}
	}
	return out
}

// unthrottle lifts the ration of cpu, for a group that is about to die: a
// signal is heeded only by a process that gets to run, and where a hundred
// share a hundredth of a core that takes minutes.
func (g group) unthrottle() {
	if !g.m.has("cpu") {
		return
	}
	d, v2 := g.dir("cpu")
	if v2 {
		_ = put(filepath.Join(d, "cpu.max"), "max") // best effort: it dies more slowly
		return
	}
	_ = put(filepath.Join(d, "cpu.cfs_quota_us"), "-1")
}

// killAll kills everything in the group and waits until it is gone, for at
// most the given time. It reports whether the group is empty. With cgroup.kill
// nothing can fork its way out; with version 1 alone the freezer holds the
// processes still while they are shot.
func (g group) killAll(within time.Duration) bool {
	deadline := time.Now().Add(within)
	if !g.none() {
		g.unthrottle()
	}
	frozen := ""
	if g.m.v2 == "" && g.m.v1["freezer"] != "" && !g.none() {
		frozen = filepath.Join(g.m.v1["freezer"], g.path, "freezer.state")
	}
	for wait := time.Millisecond; ; wait = min(wait*2, 50*time.Millisecond) {
		pids := g.procs()
		if len(pids) == 0 {
			return true
		}
		if g.m.v2 == "" || put(filepath.Join(g.m.v2, g.path, "cgroup.kill"), "1") != nil || wait > 8*time.Millisecond {
			if frozen != "" {
				_ = put(frozen, "FROZEN") // best effort: the loop comes round again
			}
			for _, pid := range g.procs() {
				inside.Kill(pid)
			}
			if frozen != "" {
				_ = put(frozen, "THAWED")
			}
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(wait)
	}
}

// remove deletes the group, which must be empty; dying processes are waited
// for, for at most the given time. What does not go in one hierarchy keeps
// nothing in the others.
func (g group) remove(within time.Duration) error {
	deadline := time.Now().Add(within)
	left := g.dirs()
	for wait := time.Millisecond; ; wait = min(wait*2, 50*time.Millisecond) {
		var failed error
		left = slices.DeleteFunc(left, func(d string) bool {
			err := os.Remove(d)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				return true
			}
			failed = errors.Join(failed, fault.Unavailable.Errorf("cgroup %s cannot be removed: %w", d, err))
			return false
		})
		if failed == nil || time.Now().After(deadline) {
			return failed
		}
		time.Sleep(wait)
	}
}
