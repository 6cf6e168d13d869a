package agent

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

// A Runtime is what is known of a task only once it has a machine.
type Runtime struct {
	TaskID   string
	Instance int32
	User     string // the account it runs as
	Hostname string
	Ports    map[string]uint16
}

// templates matches what the configuration language takes for a template.
var templates = regexp.MustCompile(`\{\{([^{}]+)\}\}`)

// Expand returns c with {{thermos.ports[NAME]}}, {{thermos.task_id}},
// {{thermos.user}}, {{mesos.instance}} and {{mesos.hostname}} bound in command
// lines, artifacts, the health check and the endpoints of the stop order. It
// leaves c as it is. Any other template there is an error of kind Invalid that
// names it.
func Expand(c job.Config, rt Runtime) (job.Config, error) {
	b := binder{rt: rt}
	c.Task.Processes = slices.Clone(c.Task.Processes)
	for i := range c.Task.Processes {
		p := &c.Task.Processes[i]
		b.bind("the command line of process "+p.Name, &p.Cmdline)
	}
	c.Task.Artifacts = slices.Clone(c.Task.Artifacts)
	for i := range c.Task.Artifacts {
		b.bind("an artifact's URI", &c.Task.Artifacts[i].URI)
		b.bind("an artifact's path", &c.Task.Artifacts[i].Path)
	}
	c.Health = b.health(c.Health)
	if c.Lifecycle != nil {
		l := *c.Lifecycle
		b.bind("the graceful shutdown endpoint", &l.Graceful)
		b.bind("the shutdown endpoint", &l.Shutdown)
		c.Lifecycle = &l
	}
	if b.err != nil {
		return job.Config{}, b.err
	}
	return c, nil
}

// binder holds the first error.
type binder struct {
	rt  Runtime
	err error
}

func (b *binder) health(h *job.Health) *job.Health {
	if h == nil {
		return nil
	}
	out := *h
	if h.HTTP != nil {
		c := *h.HTTP
		b.bind("the health check's endpoint", &c.Endpoint)
		b.bind("the health check's expected response", &c.Response)
		out.HTTP = &c
	}
	if h.Shell != nil {
		c := *h.Shell
		b.bind("the health check's command", &c.Command)
		out.Shell = &c
	}
	return &out
}

// bind replaces the templates in *s, which stands at where.
func (b *binder) bind(where string, s *string) {
	*s = templates.ReplaceAllStringFunc(*s, func(t string) string {
		v, err := b.value(where, strings.Trim(t, "{}"))
		if err != nil && b.err == nil {
			b.err = err
		}
		return v
	})
}

func (b *binder) value(where, ref string) (string, error) {
	switch ref {
	case "thermos.task_id":
		return b.rt.TaskID, nil
	case "thermos.user":
		return b.rt.User, nil
	case "mesos.instance":
		return strconv.Itoa(int(b.rt.Instance)), nil
	case "mesos.hostname":
		return b.rt.Hostname, nil
	}
	if name, ok := strings.CutPrefix(ref, "thermos.ports["); ok && strings.HasSuffix(name, "]") {
		name = strings.TrimSuffix(name, "]")
		if p, ok := b.rt.Ports[name]; ok {
			return strconv.Itoa(int(p)), nil
		}
		return "", fault.Invalid.Errorf("%s uses {{%.80s}}, but the task has no port %.60q; its ports are [%s]",
			where, ref, name, strings.Join(slices.Sorted(maps.Keys(b.rt.Ports)), ", "))
	}
	return "", fault.Invalid.Errorf("%s uses the unknown template {{%.80s}}; at run time there are thermos.ports[NAME], thermos.task_id, thermos.user, mesos.instance and mesos.hostname",
		where, ref)
}
