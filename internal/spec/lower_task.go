package spec

import (
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/spec/pyx"
	"github.com/covey-platform/covey/internal/unit"
)

func (l *lowering) task() (job.Task, error) {
	t := l.j.get("task")
	out := job.Task{Name: l.str(t, "name"), User: l.str(t, "user"), Ports: l.ports.dynamic}
	var err error
	if out.Resources, err = l.resources(); err != nil {
		return out, err
	}
	for _, f := range []struct {
		name string
		to   *int32
		most int64
	}{
		{"max_failures", &out.MaxFailures, maxInt32},
		{"max_concurrency", &out.MaxConcurrency, maxInt32},
		{"finalization_wait", &out.FinalizationWait, 24 * 3600},
		{"pids_limit", &out.PidsLimit, 1 << 22},
	} {
		if *f.to, err = l.within(t, "task", f.name, 0, f.most); err != nil {
			return out, err
		}
	}
	for i, p := range t.get("processes").items {
		proc, procErr := l.process(p, "task.processes["+itoa(i)+"]")
		if procErr != nil {
			return out, procErr
		}
		out.Processes = append(out.Processes, proc)
	}
	if cs := t.get("constraints"); cs != nil {
		for _, c := range cs.items {
			if chain := l.chain(c); len(chain) > 1 {
				out.Order = append(out.Order, chain)
			}
		}
	}
	out.Artifacts, err = l.artifacts(t)
	return out, err
}

// chain returns the names in an order constraint.
func (l *lowering) chain(c *object) []string {
	o := c.get("order")
	if o == nil {
		return nil
	}
	out := make([]string, len(o.items))
	for i, x := range o.items {
		out[i], _ = x.val.(string)
	}
	return out
}

func (l *lowering) process(p *object, path string) (job.Process, error) {
	out := job.Process{
		Name: l.str(p, "name"), Cmdline: l.portText(l.str(p, "cmdline")),
		Daemon: l.flag(p, "daemon"), Ephemeral: l.flag(p, "ephemeral"), Final: l.flag(p, "final"),
	}
	var err error
	if out.MaxFailures, err = l.within(p, path, "max_failures", 0, maxInt32); err != nil {
		return out, err
	}
	if out.MinDuration, err = l.within(p, path, "min_duration", 0, maxInt32); err != nil {
		return out, err
	}
	g := p.get("logger")
	if g == nil {
		return out, nil
	}
	out.Logger.Destination = l.str(g, "destination")
	if out.Logger.Destination == "file" {
		out.Logger.Destination = "" // the default
	}
	if l.str(g, "mode") != "rotate" {
		return out, nil
	}
	out.Logger.Rotate, out.Logger.LogSize, out.Logger.Backups = true, 100<<20, 5
	if r := g.get("rotate"); r != nil {
		if out.Logger.LogSize = l.num(r, "log_size"); out.Logger.LogSize < 4096 || out.Logger.LogSize > 1<<60 {
			return out, fail(path+".logger.rotate.log_size", r.where("log_size"), "is %s bytes; want 4096 to 1024 PiB, such as 5*MB", r.shown("log_size"))
		}
		out.Logger.Backups, err = l.within(r, path+".logger.rotate", "backups", 0, 1000)
	}
	return out, err
}

// resources returns the task's resources: cpu and gpu in thousandths, memory
// and disk in whole MiB, cut down.
func (l *lowering) resources() (unit.Resources, error) {
	r := l.j.get("task").get("resources")
	var out unit.Resources
	var err error
	if out.CPU, err = l.milli(r, "cpu", 1); err != nil {
		return out, err
	}
	if out.GPU, err = l.milli(r, "gpu", 0); err != nil {
		return out, err
	}
	if out.GPU > 1000 && out.GPU%1000 != 0 {
		return out, fail("task.resources.gpu", r.where("gpu"), "is %s; want a share below 1 or whole GPUs", unit.GPU.Format(out.GPU))
	}
	for f, to := range map[string]*int64{"ram": &out.RAM, "disk": &out.Disk} {
		if n := l.num(r, f); n < unit.MiB {
			hint := ""
			if n > 0 {
				hint = "; amounts are bytes: write " + strconv.FormatInt(n, 10) + "*MB if you meant MiB"
			}
			return out, fail("task.resources."+f, r.where(f), "is %s bytes, less than one MiB%s", r.shown(f), hint)
		}
		if *to = l.num(r, f); *to > 1<<60 {
			return out, fail("task.resources."+f, r.where(f), "is %s bytes; want less than 1024 PiB", r.shown(f))
		}
	}
	if v := r.get("net"); v != nil {
		n, whole := v.val.(int64)
		if f, ok := v.val.(float64); ok && f >= 0 && f < 1e15 {
			n, whole = int64(math.Round(f)), true
		}
		if !whole || n < 0 || n > 1e15 {
			return out, fail("task.resources.net", r.where("net"), "is %s; want bits per second of at most 10**15, such as 100*Mbps", r.shown("net"))
		}
		out.Net = n
	}
	return out.Whole(), nil
}

// milli returns a decimal field in thousandths, exactly: 0.1 is 100. A sum of
// floats is read to twelve digits, which drops what binary fractions add.
func (l *lowering) milli(r *object, f string, least int64) (int64, error) {
	v := r.get(f)
	if v == nil {
		return 0, nil
	}
	bad := func(format string, args ...any) (int64, error) {
		return 0, fail("task.resources."+f, r.where(f), format, args...)
	}
	x, ok := v.val.(float64)
	if n, isInt := v.val.(int64); isInt {
		x, ok = float64(n), true
	}
	if !ok || math.IsNaN(x) || x < 0 || x > 1e9 {
		return bad("is %s; want a number of %ss above 0, of at most 1000000000", r.shown(f), map[string]string{"cpu": "core", "gpu": "GPU"}[f])
	}
	text := strconv.FormatFloat(x, 'g', 12, 64)
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return bad("is %s; want a number", text)
	}
	whole, frac, _ := strings.Cut(strconv.FormatFloat(x, 'f', -1, 64), ".")
	if len(frac) > 3 {
		return bad("is %s; the finest amount is 0.001", show(v.val))
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 3-len(frac)), 10, 64)
	if err != nil || n < least {
		return bad("is %s; want more than 0", show(v.val))
	}
	return n, nil
}

func (l *lowering) artifacts(t *object) ([]job.Artifact, error) {
	list := t.get("artifacts")
	if list == nil {
		return nil, nil
	}
	var out []job.Artifact
	for i, x := range list.items {
		at := "task.artifacts[" + itoa(i) + "]"
		a := job.Artifact{URI: l.str(x, "uri"), Digest: l.str(x, "digest"), Path: l.str(x, "path"), Extract: l.flag(x, "extract")}
		scheme, _, _ := strings.Cut(a.URI, "://")
		if scheme != "http" && scheme != "https" && scheme != "file" {
			return nil, fail(at+".uri", x.where("uri"), "is %s; want http://, https:// or file://", show(a.URI))
		}
		hex, ok := strings.CutPrefix(a.Digest, "sha256:")
		if a.Digest == "" && scheme != "file" || a.Digest != "" && (!ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "") {
			return nil, fail(at+".digest", x.where("digest"), "is %s; want sha256: and 64 hex digits (only file:// may go without)", show(a.Digest))
		}
		if p := path.Clean(a.Path); a.Path == "" || path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") || p == "." {
			return nil, fail(at+".path", x.where("path"), "is %s; want a path below the sandbox, such as bin/server", show(a.Path))
		}
		if m := l.str(x, "mode"); m != "" {
			n, err := strconv.ParseUint(m, 8, 32)
			if err != nil || n > 0o777 {
				return nil, fail(at+".mode", x.where("mode"), "is %s; want octal digits such as '755'", show(m))
			}
			a.Mode = uint32(n)
		}
		out = append(out, a)
	}
	return out, nil
}

// plan checks the order of a task's processes: known names, no daemon or
// ephemeral process that an ordinary one waits for, no mix of ordinary and
// final ones, no circle.
func (l *lowering) plan(t *object) error {
	g := graph{kind: map[string]*object{}, after: map[string][]string{}}
	for i, p := range t.get("processes").items {
		n := l.str(p, "name")
		if g.kind[n] != nil {
			return fail("task.processes["+itoa(i)+"].name", p.where("name"), "is %s, as another process of the task; give each its own name", show(n))
		}
		g.kind[n] = p
		g.names = append(g.names, n)
	}
	cs := t.get("constraints")
	if cs == nil {
		return nil
	}
	for i, c := range cs.items {
		if err := l.planChain(g, c, "task.constraints["+itoa(i)+"].order"); err != nil {
			return err
		}
	}
	if circle := g.circle(); circle != nil {
		return fail("task.constraints", t.where("constraints"), "orders the processes in a circle: %s", strings.Join(circle, " -> "))
	}
	return nil
}

func (l *lowering) planChain(g graph, c *object, path string) error {
	at := c.where("order")
	chain := l.chain(c)
	for k, n := range chain {
		p := g.kind[n]
		if p == nil {
			return fail(path, at, "names the process %s, which the task does not have%s", show(n), pyx.Suggest(n, g.names))
		}
		if k == 0 {
			continue
		}
		before := chain[k-1]
		b := g.kind[before]
		switch {
		case l.flag(p, "final") != l.flag(b, "final"):
			return fail(path, at, "mixes ordinary and final processes (%s, %s); final ones always run after all others", before, n)
		case l.flag(b, "daemon"):
			return fail(path, at, "makes %s wait for the daemon %s, which never ends", n, before)
		case l.flag(b, "ephemeral") && !l.flag(p, "ephemeral"):
			return fail(path, at, "makes %s wait for the ephemeral process %s, which the task may end without", n, before)
		}
		g.after[before] = append(g.after[before], n)
	}
	return nil
}

// A graph is the order of a task's processes.
type graph struct {
	names []string
	kind  map[string]*object
	after map[string][]string // what starts after a process
}

// circle returns a circle of names, the first one again at its end, or nil.
func (g graph) circle() []string {
	const (
		open = 1
		done = 2
	)
	state := map[string]int{}
	for _, start := range g.names {
		if state[start] != 0 {
			continue
		}
		type step struct {
			n    string
			next int
		}
		path := []step{{start, 0}}
		state[start] = open
		for len(path) > 0 {
			s := &path[len(path)-1]
			if s.next == len(g.after[s.n]) {
				state[s.n] = done
				path = path[:len(path)-1]
				continue
			}
			m := g.after[s.n][s.next]
			s.next++
			switch state[m] {
			case 0:
				state[m] = open
				path = append(path, step{m, 0})
			case open:
				var out []string
				for i := range path {
					if path[i].n == m || out != nil {
						out = append(out, path[i].n)
					}
				}
				return append(out, m)
			}
		}
	}
	return nil
}
