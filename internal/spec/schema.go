package spec

import "github.com/covey-platform/covey/internal/spec/pyx"

// A schema holds the types that configuration files use, with Aurora's names
// and defaults; Covey's own fields are marked. It is made anew for each file
// and never changes.
type schema struct {
	types map[string]*schemaType
	names map[string]pyx.Value // what a file sees, beside the types
}

var (
	tString  = simple("String", kString)
	tInteger = simple("Integer", kInteger)
	tFloat   = simple("Float", kFloat)
	tBoolean = simple("Boolean", kBoolean)
	tNumber  = simple("Number", kNumber)
)

func opt(name string, t *schemaType) field { return field{name: name, typ: t} }
func req(name string, t *schemaType) field { return field{name: name, typ: t, required: true} }

// def is a field with a default of a simple type.
func def(name string, t *schemaType, v pyx.Value) field {
	return field{name: name, typ: t, def: &object{typ: t, val: v}}
}

// defObject is a field whose default is an object.
func defObject(name string, o *object) field { return field{name: name, typ: o.typ, def: o} }

// defList is a field with an empty list as its default.
func defList(name string, t *schemaType) field {
	l := listOf(t)
	return field{name: name, typ: l, def: &object{typ: l}}
}

// zero returns an object of a struct with its defaults.
func zero(t *schemaType, set ...slotOf) *object {
	o := &object{typ: t, data: make([]slot, len(t.fields))}
	for i, f := range t.fields {
		o.data[i].o = f.def
	}
	for _, s := range set {
		o.data[t.index[s.name]].o = s.o
	}
	return o
}

type slotOf struct {
	name string
	o    *object
}

func newSchema() *schema {
	s := &schema{types: map[string]*schemaType{}, names: map[string]pyx.Value{}}
	s.thermos()
	s.health()
	s.rest()
	s.job()
	for _, t := range []*schemaType{tString, tInteger, tFloat, tBoolean} {
		s.types[t.name] = t
	}
	s.constants()
	return s
}

func (s *schema) add(t *schemaType) *schemaType {
	s.types[t.name] = t
	return t
}

func (s *schema) thermos() {
	res := s.add(structOf("Resources", req("cpu", tFloat), req("ram", tInteger), req("disk", tInteger),
		def("gpu", tNumber, int64(0)),
		opt("net", tNumber))) // Covey: bits per second
	dest := s.add(enumOf("LoggerDestination", "file", "console", "both", "none"))
	mode := s.add(enumOf("LoggerMode", "standard", "rotate"))
	rotate := s.add(structOf("RotatePolicy", def("log_size", tInteger, int64(100<<20)), def("backups", tInteger, int64(5))))
	logger := s.add(structOf("Logger", def("destination", dest, "file"), def("mode", mode, "standard"), opt("rotate", rotate)))
	proc := s.add(structOf("Process", req("cmdline", tString), req("name", tString), opt("resources", res),
		def("max_failures", tInteger, int64(1)), def("daemon", tBoolean, false), def("ephemeral", tBoolean, false),
		def("min_duration", tInteger, int64(5)), def("final", tBoolean, false), opt("logger", logger)))
	constraint := s.add(structOf("Constraint", opt("order", listOf(tString))))
	artifact := s.add(structOf("Artifact", req("uri", tString), opt("digest", tString), req("path", tString),
		opt("extract", tBoolean), opt("mode", tString))) // Covey
	s.add(structOf("Task", def("name", tString, "{{processes[0].name}}"), opt("processes", listOf(proc)),
		defList("constraints", constraint), opt("resources", res), def("max_failures", tInteger, int64(1)),
		def("max_concurrency", tInteger, int64(0)), def("finalization_wait", tInteger, int64(30)), opt("user", tString),
		opt("artifacts", listOf(artifact)), opt("pids_limit", tInteger))) // the last two are Covey's
}

func (s *schema) health() {
	httpC := s.add(structOf("HttpHealthChecker", def("endpoint", tString, "/health"), def("expected_response", tString, "ok"),
		def("expected_response_code", tInteger, int64(0))))
	shell := s.add(structOf("ShellHealthChecker", req("shell_command", tString)))
	checker := s.add(structOf("HealthCheckerConfig", opt("http", httpC), opt("shell", shell)))
	standard := zero(checker, slotOf{"http", zero(httpC)})
	s.names["DefaultHealthChecker"] = standard
	s.add(structOf("HealthCheckConfig", defObject("health_checker", standard), def("initial_interval_secs", tFloat, 15.0),
		def("interval_secs", tFloat, 10.0), def("max_consecutive_failures", tInteger, int64(0)),
		def("min_consecutive_successes", tInteger, int64(1)), def("timeout_secs", tFloat, 1.0)))
	life := s.add(structOf("HttpLifecycleConfig", def("port", tString, "health"),
		def("graceful_shutdown_endpoint", tString, "/quitquitquit"), def("shutdown_endpoint", tString, "/abortabortabort"),
		def("graceful_shutdown_wait_secs", tInteger, int64(5)), def("shutdown_wait_secs", tInteger, int64(5))))
	cfg := s.add(structOf("LifecycleConfig", opt("http", life)))
	s.names["DisableLifecycle"] = zero(cfg)
	s.names["DefaultLifecycleConfig"] = zero(cfg, slotOf{"http", zero(life)})
}

func (s *schema) rest() {
	portmap := mapOf(tString, tString)
	s.add(structOf("Announcer", def("primary_port", tString, "http"),
		defObject("portmap", &object{typ: portmap, pairs: []pair{{&object{typ: tString, val: "aurora"}, &object{typ: tString, val: "{{primary_port}}"}}}}),
		opt("zk_path", tString)))
	param := s.add(structOf("Parameter", req("name", tString), req("value", tString)))
	docker := s.add(structOf("Docker", req("image", tString), defList("parameters", param)))
	appc := s.add(structOf("AppcImage", req("name", tString), req("image_id", tString)))
	dockerImage := s.add(structOf("DockerImage", req("name", tString), req("tag", tString)))
	mode := s.add(enumOf("Mode", "RO", "RW"))
	volume := s.add(structOf("Volume", req("container_path", tString), req("host_path", tString), req("mode", mode)))
	mesos := s.add(structOf("Mesos", opt("image", choiceOf("Image", appc, dockerImage)), defList("volumes", volume)))
	s.add(structOf("Container", opt("docker", docker)))
	s.types["container choice"] = choiceOf("Container", s.types["Container"], docker, mesos)
	s.add(structOf("PartitionPolicy", def("reschedule", tBoolean, true), def("delay_secs", tInteger, int64(0))))
	s.add(structOf("Metadata", req("key", tString), req("value", tString)))
	s.add(structOf("ExecutorConfig", def("name", tString, "AuroraExecutor"), def("data", tString, "")))
	coord := s.add(structOf("CoordinatorSlaPolicy", req("coordinator_url", tString), def("status_key", tString, "drain")))
	cnt := s.add(structOf("CountSlaPolicy", req("count", tInteger), def("duration_secs", tInteger, int64(1800))))
	pct := s.add(structOf("PercentageSlaPolicy", def("percentage", tFloat, 95.0), def("duration_secs", tInteger, int64(1800))))
	s.types["sla choice"] = choiceOf("SlaPolicy", cnt, coord, pct)
	queue := s.add(structOf("QueueUpdateStrategy", def("batch_size", tInteger, int64(1))))
	batch := s.add(structOf("BatchUpdateStrategy", def("batch_size", tInteger, int64(1)), def("autopause_after_batch", tBoolean, false)))
	variable := s.add(structOf("VariableBatchUpdateStrategy", req("batch_sizes", listOf(tInteger)), def("autopause_after_batch", tBoolean, false)))
	s.add(structOf("UpdateConfig", def("batch_size", tInteger, int64(1)), def("watch_secs", tInteger, int64(45)),
		def("max_per_shard_failures", tInteger, int64(0)), def("max_total_failures", tInteger, int64(0)),
		def("rollback_on_failure", tBoolean, true), def("wait_for_batch_completion", tBoolean, false),
		opt("pulse_interval_secs", tInteger), opt("update_strategy", choiceOf("UpdateStrategy", queue, batch, variable)),
		def("sla_aware", tBoolean, false)))
}

func (s *schema) job() {
	t := s.types
	metadata := field{name: "metadata", typ: listOf(t["Metadata"]), def: &object{typ: listOf(t["Metadata"])}}
	life, _ := s.names["DefaultLifecycleConfig"].(*object)
	job := s.add(structOf("Job", def("name", tString, "{{task.name}}"), req("role", tString), opt("contact", tString),
		req("cluster", tString), req("environment", tString), def("instances", tInteger, int64(1)), req("task", t["Task"]),
		opt("announce", t["Announcer"]), opt("tier", tString), opt("cron_schedule", tString),
		def("cron_collision_policy", tString, "KILL_EXISTING"), defObject("update_config", zero(t["UpdateConfig"])),
		opt("constraints", mapOf(tString, tString)), metadata, def("service", tBoolean, false),
		def("max_task_failures", tInteger, int64(1)), def("production", tBoolean, false), def("priority", tInteger, int64(0)),
		defObject("health_check_config", zero(t["HealthCheckConfig"])), defObject("lifecycle", life),
		opt("task_links", mapOf(tString, tString)), defObject("executor_config", zero(t["ExecutorConfig"])),
		def("enable_hooks", tBoolean, false), opt("partition_policy", t["PartitionPolicy"]), opt("sla_policy", t["sla choice"]),
		opt("container", t["container choice"]), opt("exclusive", tBoolean), opt("placement", tString))) // the last two are Covey's
	t["MesosJob"] = job
	s.names["Service"] = zero(job, slotOf{"service", &object{typ: tBoolean, val: true}})
}

func (s *schema) constants() {
	n := s.names
	for i, u := range []string{"BYTES", "KB", "MB", "GB", "TB"} {
		n[u] = int64(1) << (10 * i)
	}
	n["Kbps"], n["Mbps"], n["Gbps"] = int64(1e3), int64(1e6), int64(1e9)
	n["Empty"] = empty
	for name, t := range s.types {
		if name == "container choice" || name == "sla choice" {
			continue
		}
		n[name] = t
	}
	n["Struct"] = structBase{}
	for name, f := range typeMakers {
		n[name] = &pyx.Builtin{Name: name, Fn: f}
	}
	s.helpers()
}
