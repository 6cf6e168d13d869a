package spec

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/spec/pyx"
)

// lowering turns one job of a file into a job of the domain. Fields are read
// from j, the job with its names bound.
type lowering struct {
	*evaluation
	job   *object // as written
	j     *object // with names bound
	ports portSet
}

// run fills an entry as far as the job is right.
func (l *lowering) run(e *Entry) error {
	bound := l.bound()
	l.label(e, bound)
	if c := l.bundle.Cluster; c != "" && e.Cluster != c && e.Cluster != "?" {
		return fmt.Errorf("it belongs to the cluster %s, not to %s", e.Cluster, c)
	}
	for _, f := range []string{"cluster", "role", "environment", "task"} {
		if bound.get(f) == nil {
			return fail(f, bound.at, "is missing; want %s", example(f))
		}
	}
	j, err := newBinder(l.in, true).interpolate(bound)
	if err != nil {
		return err
	}
	l.j = j
	if err = l.checkWhole(); err != nil {
		return err
	}
	if err = l.checkAurora(); err != nil {
		return err
	}
	if e.Raw, err = l.raw(); err != nil {
		return err
	}
	if err = l.checkSupported(); err != nil {
		return err
	}
	lowered, err := l.lower(job.Key(e.Key))
	if err != nil {
		return err
	}
	if err = lowered.Validate(); err != nil {
		return l.placed(err)
	}
	e.Job = lowered
	return nil
}

// placed gives an error about a lowered job the place in the file that it is
// about: that of its field, or of what is around the field.
func (l *lowering) placed(err error) error {
	at := l.job.at
	if fe, ok := errors.AsType[*job.FieldError](err); ok {
		at = l.placeOf(fe.Field)
	}
	return pyx.ErrorAt(at, "ValueError", "%s", err)
}

// placeOf finds where a field was set by its path, such as
// task.processes[0].cmdline or constraints[rack].
func (l *lowering) placeOf(path string) pyx.Pos {
	o, at := l.j, l.job.at
	for step := range strings.SplitSeq(path, ".") {
		f, key, inside := strings.Cut(strings.TrimSuffix(step, "]"), "[")
		if w := o.where(f); w.IsValid() {
			at = w
		}
		if o = o.get(f); o != nil && inside {
			o = o.inside(key)
		}
		if o == nil {
			break
		}
		if inside && o.at.IsValid() {
			at = o.at
		}
	}
	return at
}

// fail is an error about a field.
func fail(path string, at pyx.Pos, format string, args ...any) error {
	return &fieldError{path, at, fmt.Errorf(format, args...)}
}

func example(f string) string {
	return map[string]string{
		"cluster": "cluster = 'dev'", "role": "role = 'www-data', the account that owns the job",
		"environment": "environment = 'prod', 'devel', 'test' or 'staging' with a number", "task": "task = Task(...)",
	}[f]
}

// bound returns the job with the caller's bindings and Aurora's own on top.
func (l *lowering) bound() *object {
	o := *l.job
	if len(l.binds.table) > 0 {
		o.scopes = &scopes{l.binds, o.scopes}
	}
	o.scopes = &scopes{standard(), o.scopes}
	return &o
}

// standard returns Aurora's own bindings.
func standard() *env {
	return &env{table: map[string]any{".mesos.role": "{{role}}", ".mesos.cluster": "{{cluster}}", ".thermos.user": "{{role}}"}, most: 2}
}

// label finds the job's key as far as it can be told.
func (l *lowering) label(e *Entry, bound *object) {
	part := func(f string) string {
		v := bound.get(f)
		if v == nil {
			return "?"
		}
		x, err := newBinder(l.in, true).interpolate(v.inScope(bound.inner()))
		if err != nil {
			return "?"
		}
		s, _ := x.val.(string)
		if s == "" || strings.Contains(s, "{{") {
			return "?"
		}
		return s
	}
	e.Cluster = part("cluster")
	e.Key = part("role") + "/" + part("environment") + "/" + part("name")
}

// runtime reports whether a reference is bound only when a task runs.
func runtime(r ref) bool {
	switch r.String() {
	case "thermos.task_id", "mesos.instance", "mesos.hostname":
		return true
	}
	return len(r) == 3 && r[0] == ".thermos" && r[1] == ".ports" && r[2][0] == '['
}

// checkWhole reports required fields without a value and templates that
// nothing binds.
func (l *lowering) checkWhole() error { return l.whole(l.j, "", l.j.at) }

func (l *lowering) whole(o *object, path string, at pyx.Pos) error {
	switch o.typ.kind {
	case kStruct:
		for i, f := range o.typ.fields {
			p := strings.TrimPrefix(path+"."+f.name, ".")
			v := o.data[i].o
			if v == nil && f.required {
				return fail(p, o.at, "is missing; %s wants %s", o.typ.name, f.typ.want())
			}
			if v == nil {
				continue
			}
			if err := l.whole(v, p, o.where(f.name)); err != nil {
				return err
			}
		}
	case kList:
		for i, x := range o.items {
			if err := l.whole(x, path+"["+itoa(i)+"]", x.at); err != nil {
				return err
			}
		}
	case kMap:
		for _, p := range o.pairs {
			for _, x := range []*object{p.key, p.val} {
				if err := l.whole(x, path+"["+show(p.key.val)+"]", p.val.at); err != nil {
					return err
				}
			}
		}
	default:
		return l.wholeValue(o, path, at)
	}
	return nil
}

func (l *lowering) wholeValue(o *object, path string, at pyx.Pos) error {
	s, ok := o.val.(string)
	if !ok || !strings.Contains(s, "{{") {
		return nil
	}
	if o.at.IsValid() {
		at = o.at
	}
	chunks, err := split(s)
	if err != nil {
		return fail(path, at, "%w", err)
	}
	for _, c := range chunks {
		if c.ref == nil {
			continue
		}
		if !runtime(c.ref) {
			if path == "task.name" && c.ref.String() == "processes[0].name" { // as every task is called that says nothing else
				return l.nameless(at)
			}
			hint := l.meant(c.ref)
			if hint == "" {
				hint = "; bind it with .bind(...) or --bind " + c.ref.String() + "=VALUE"
			}
			return fail(path, at, "holds {{%s}}, which nothing binds%s", c.ref, hint)
		}
		if o.typ.kind != kString {
			return fail(path, at, "holds {{%s}}, which is known only when a task runs; want %s", c.ref, o.typ.want())
		}
	}
	return nil
}

// nameless says why a task has no first process to be called after.
func (l *lowering) nameless(at pyx.Pos) error {
	t := l.j.get("task")
	if ps := t.get("processes"); ps != nil && len(ps.items) > 0 {
		if err := l.whole(ps, "task.processes", t.where("processes")); err != nil {
			return err
		}
	}
	return fail("task.processes", at, "is empty; a task wants at least one Process")
}

// meant guesses which name an unbound reference meant.
func (l *lowering) meant(r ref) string {
	names := []string{"thermos.task_id", "thermos.user", "mesos.instance", "mesos.hostname", "mesos.role", "mesos.cluster"}
	if len(r) > 1 && (r[0] == ".thermos" || r[0] == ".mesos") {
		if strings.HasPrefix(r[1], ".port") || len(r) > 2 && pyx.Suggest(strings.Trim(r[1], "."), []string{"ports"}) != "" {
			n := "NAME"
			if len(r) > 2 {
				n = strings.Trim(r[2], ".[]")
			}
			return "; did you mean {{thermos.ports[" + n + "]}}?"
		}
		return pyx.Suggest(r.String(), names)
	}
	names = append(names, l.j.typ.fieldNames()...)
	for a := range l.binds.table {
		names = append(names, strings.TrimPrefix(a, "."))
	}
	for n := l.job.scopes; n != nil; n = n.next {
		if e, ok := n.head.(*env); ok {
			for a := range e.table {
				names = append(names, strings.TrimPrefix(a, "."))
			}
		}
	}
	return pyx.Suggest(r.String(), names)
}

var processName = regexp.MustCompile(`^[^./][^/]*$`)

// checkAurora holds the job to the rules by which Aurora's client refuses it.
func (l *lowering) checkAurora() error {
	j := l.j
	for _, f := range []string{"role", "environment", "name"} {
		if err := name.Valid(f, l.str(j, f)); err != nil {
			return fail(f, j.where(f), "is wrong: %s", err)
		}
	}
	if err := name.Valid("cluster", l.str(j, "cluster")); err != nil {
		return fail("cluster", j.where("cluster"), "is wrong: %s", err)
	}
	key := job.NewKey(l.str(j, "role"), l.str(j, "environment"), l.str(j, "name"))
	if err := key.Validate(); err != nil {
		return fail("environment", j.where("environment"), "is wrong: %s", err)
	}
	if j.get("task_links") != nil {
		return fail("task_links", j.where("task_links"), "is no longer supported; leave it out")
	}
	if p := strings.ToUpper(l.str(j, "cron_collision_policy")); p != "KILL_EXISTING" && p != "CANCEL_NEW" && p != "RUN_OVERLAP" {
		return fail("cron_collision_policy", j.where("cron_collision_policy"), "is %s; want KILL_EXISTING or CANCEL_NEW%s",
			show(l.str(j, "cron_collision_policy")), pyx.Suggest(p, []string{"KILL_EXISTING", "CANCEL_NEW"}))
	}
	for _, check := range []func() error{l.checkTask, l.checkPorts, l.checkUpdate} {
		if err := check(); err != nil {
			return err
		}
	}
	if _, err := l.constraints(); err != nil {
		return err
	}
	_, err := l.instances()
	return err
}

// checkTask checks the parts of the task that every job needs.
func (l *lowering) checkTask() error {
	t := l.j.get("task")
	procs := t.get("processes")
	if procs == nil || len(procs.items) == 0 {
		return fail("task.processes", t.where("processes"), "is missing; a task wants at least one Process")
	}
	if t.get("resources") == nil {
		return fail("task.resources", t.at, "is missing; want Resources(cpu = 1, ram = 128*MB, disk = 64*MB)")
	}
	for i, p := range procs.items {
		n := l.str(p, "name")
		if !processName.MatchString(n) || len(n) > 128 || strings.ContainsFunc(n, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fail("task.processes["+itoa(i)+"].name", p.where("name"), "is %s; want a name without '/' that does not begin with '.', of at most 128 bytes", show(n))
		}
	}
	if _, err := l.resources(); err != nil {
		return err
	}
	return l.plan(t)
}

// checkSupported refuses what is right but what this version cannot run.
func (l *lowering) checkSupported() error {
	j := l.j
	no := func(f, what string) error {
		return fail(f, j.where(f), "asks for %s, which this version cannot run yet", what)
	}
	if j.get("cron_schedule") != nil {
		return fail("cron_schedule", j.where("cron_schedule"), "is set: cron jobs are not supported yet by this version")
	}
	if x := j.get("executor_config"); x != nil && l.str(x, "name") != "AuroraExecutor" {
		return no("executor_config", "the executor "+show(l.str(x, "name")))
	}
	c := j.get("container")
	switch {
	case c == nil:
	case c.typ.name == "Docker":
		return no("container", "a Docker container")
	case c.typ.name == "Container" && c.get("docker") != nil:
		return no("container", "a Docker container")
	case c.typ.name == "Mesos" && c.get("image") != nil:
		return no("container", "a container image")
	case c.typ.name == "Mesos" && c.get("volumes") != nil && len(c.get("volumes").items) > 0:
		return no("container", "volumes")
	}
	return nil
}

// raw returns the job in the form in which Aurora gives it to its executor:
// the update's settings and the number of instances are not part of it.
func (l *lowering) raw() ([]byte, error) {
	o := *l.j
	o.data = append([]slot(nil), l.j.data...)
	for _, f := range []string{"update_config", "instances"} {
		o.data[o.typ.index[f]].o = nil
	}
	return encode(l.in, &o)
}

// str returns a string field, "" when it is empty.
func (l *lowering) str(o *object, f string) string {
	if v := o.get(f); v != nil {
		s, _ := v.val.(string)
		return s
	}
	return ""
}

// num returns a whole field, 0 when it is empty.
func (l *lowering) num(o *object, f string) int64 {
	if v := o.get(f); v != nil {
		n, _ := v.val.(int64)
		return n
	}
	return 0
}

func (l *lowering) flag(o *object, f string) bool {
	if v := o.get(f); v != nil {
		b, _ := v.val.(bool)
		return b
	}
	return false
}

// within returns a whole field as int32 when it lies between two bounds.
func (l *lowering) within(o *object, path, f string, least, most int64) (int32, error) {
	n := l.num(o, f)
	if n < least || n > most {
		return 0, fail(strings.TrimPrefix(path+"."+f, "."), o.where(f), "is %s; want %d to %d", o.shown(f), least, most)
	}
	return int32(n), nil
}
