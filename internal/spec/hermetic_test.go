package spec_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/spec"
)

func eval(t *testing.T, b spec.Bundle) []spec.Entry {
	t.Helper()
	f, err := spec.Eval(b, spec.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return f.Jobs()
}

// TestHermetic tries to learn about the machine that evaluates.
func TestHermetic(t *testing.T) {
	t.Setenv("COVEY_SPEC_SECRET", "secret")
	for _, tc := range []struct{ text, want string }{
		{"open('/etc/passwd')", "there is no file /etc/passwd"},
		{"open('hermetic_test.go')", "there is no file hermetic_test.go"},
		{"open('../spec.go')", "there is no file"},
		{"include('/etc/hostname')", "there is no file"},
		{"import os\nos.environ['COVEY_SPEC_SECRET']", "is not set"},
		{"import os\nos.environ['PATH']", "is not set"},
		{"import os\nos.listdir('/')", "the module os has no listdir"},
		{"import os\nos.system('true')", "the module os has no system"},
		{"import socket", "not available"},
		{"import subprocess", "not available"},
		{"import sys", "not available"},
		{"from os import popen", "has no popen"},
		{"import random", "not available"},
		{"from datetime import datetime", "not available"},
		{"eval('1')", "not available"},
		{"exec 'x'", "not available"},
		{"__import__('os')", "not available"},
		{"().__class__.__bases__", "has no attribute __class__"},
	} {
		_, err := spec.Eval(one(tc.text), spec.DefaultLimits())
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.text, err, tc.want)
		}
	}
}

func TestWhatAFileSees(t *testing.T) {
	b := one(`
import getpass, os, os.path
with open('conf/motd.txt') as f:
  motd = f.read().strip()
lines = ','.join(l.strip() for l in open('conf/motd.txt'))
jobs = [Job(cluster = 'c', role = getpass.getuser(), environment = 'test', name = 'n', contact = os.path.join(os.environ['USER'], os.environ['LOGNAME'], os.environ.get('HOME'), os.environ.get('PATH', 'none')),
  task = SimpleTask('t', 'echo %s %s' % (motd, lines)))]
`)
	b.Files["conf/motd.txt"] = []byte("hello\nworld\n")
	e := eval(t, b)[0]
	if e.Err != nil {
		t.Fatal(e.Err)
	}
	if got, want := e.Job.Config.Task.Processes[0].Cmdline, "echo hello\nworld hello,world"; got != want {
		t.Errorf("got command %q, want %q", got, want)
	}
	if got, want := e.Job.Config.Contact, "/home/vagrant/none"; got != want {
		t.Errorf("got contact %q, want %q", got, want)
	}
	if got, want := e.Job.Key.Role(), "vagrant"; got != want {
		t.Errorf("got role %q, want %q", got, want)
	}
}

// TestSameBytes evaluates the corpus and a large file twice.
func TestSameBytes(t *testing.T) {
	bundles := []spec.Bundle{manyJobs(50)}
	for _, f := range corpus(t) {
		bundles = append(bundles, bundle(t, "testdata/aurora", f.File))
	}
	for _, b := range bundles {
		a, c := eval(t, b), eval(t, b)
		for i := range a {
			if !bytes.Equal(a[i].Raw, c[i].Raw) {
				t.Errorf("%s: job %d has two raw forms", b.Main, i)
			}
			x, _ := a[i].Job.Config.Encode()
			y, _ := c[i].Job.Config.Encode()
			if !bytes.Equal(x, y) {
				t.Errorf("%s: job %d has two configs", b.Main, i)
			}
			if fmt.Sprint(a[i].Err) != fmt.Sprint(c[i].Err) {
				t.Errorf("%s: job %d has two errors: %v, %v", b.Main, i, a[i].Err, c[i].Err)
			}
		}
	}
}

// TestCollect evaluates with a loader, and again with the bundle it returned.
func TestCollect(t *testing.T) {
	disk := map[string]string{
		"jobs/main.aurora":   "include('../lib/base.aurora')\njobs = [base(name = 'n', contact = open('who.txt').read().strip())]\n",
		"lib/base.aurora":    "include('task.aurora')\nbase = Job(cluster = 'c', role = 'r', environment = 'prod', task = task)\n",
		"lib/task.aurora":    "task = SimpleTask('t', '{{cmd}}')\n",
		"jobs/who.txt":       "team@example.com\n",
		"jobs/unused.aurora": "x = 1\n",
	}
	load := func(name string) ([]byte, error) {
		if s, ok := disk[name]; ok {
			return []byte(s), nil
		}
		return nil, errors.New("no such file: " + name)
	}
	b, f, err := spec.Collect("jobs/main.aurora", "me", []string{"cmd=run it"}, load, spec.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for n := range b.Files {
		names = append(names, n)
	}
	slices.Sort(names)
	if d := cmp.Diff([]string{"jobs/main.aurora", "jobs/who.txt", "lib/base.aurora", "lib/task.aurora"}, names); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	there := eval(t, b)
	if d := cmp.Diff(f.Jobs(), there); d != "" {
		t.Errorf("here and there differ (-here +there):\n%s", d)
	}
	if got, want := there[0].Job.Config.Task.Processes[0].Cmdline, "run it"; got != want {
		t.Errorf("got command %q, want %q", got, want)
	}
	if _, _, err := spec.Collect("nowhere.aurora", "me", nil, load, spec.DefaultLimits()); fault.Of(err) != fault.Invalid {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestBindings(t *testing.T) {
	text := `
class Profile(Struct):
  instances = Default(Integer, 1)
  where = String
jobs = [Job(cluster = 'c', role = 'r', environment = '{{env}}', name = 'n', instances = '{{profile.instances}}',
  task = SimpleTask('t', '{{profile.where}} {{list[1]}} {{x}}')).bind(profile = Profile(where = 'file', instances = 2), env = 'test', list = {'[1]': 'one'}, x = 'inner')]
`
	for _, tc := range []struct {
		binds []string
		n     int
		cmd   string
		key   string
	}{
		{nil, 2, "file one inner", "r/test/n"},
		{[]string{"profile.instances=3", "env=prod"}, 3, "file one inner", "r/prod/n"},
		{[]string{"x=outer=1", "profile.where={{env}}"}, 2, "test one outer=1", "r/test/n"},
	} {
		b := one(text)
		b.Binds = tc.binds
		e := eval(t, b)[0]
		if e.Err != nil {
			t.Errorf("%v: %v", tc.binds, e.Err)
			continue
		}
		if got := e.Job.Instances.Len(); got != tc.n {
			t.Errorf("%v: got %d instances, want %d", tc.binds, got, tc.n)
		}
		if got := e.Job.Config.Task.Processes[0].Cmdline; got != tc.cmd {
			t.Errorf("%v: got command %q, want %q", tc.binds, got, tc.cmd)
		}
		if e.Key != tc.key {
			t.Errorf("%v: got key %q, want %q", tc.binds, e.Key, tc.key)
		}
	}
	for _, bad := range []string{"x", "=1", "a b=1", "1a=2"} {
		b := one(text)
		b.Binds = []string{bad}
		if _, err := spec.Eval(b, spec.DefaultLimits()); fault.Of(err) != fault.Invalid || err == nil {
			t.Errorf("the binding %q: got %v, want it refused", bad, err)
		}
	}
}

func TestSelect(t *testing.T) {
	f, err := spec.Eval(one(`
j = Job(cluster = 'c', role = 'r', environment = 'prod', task = SimpleTask('t', 'x'))
k = Job(cluster = 'c', role = 'r', task = SimpleTask('t', 'x'))
jobs = [j(name = 'a'), j(name = 'b'), j(name = 'b'), j(name = 'bad', instances = 0), k(name = 'a'), k(name = 'k'), k(name = 'k'),
  Job(role = 'r', environment = 'test', name = 'm', task = SimpleTask('t', 'x')),
  j(name = 'o', role = 'r', environment = 'production')]
`), spec.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		key, want string
		kind      fault.Kind
	}{
		{"c/r/prod/a", "", fault.Internal},
		{"c/r/prod/aa", "did you mean c/r/prod/a?", fault.NotFound},
		{"c/r/prod/b", "2 times (a.aurora:4:", fault.Invalid},
		{"c/r/prod/k", "a.aurora:4:101: job c/r/?/k: environment is missing", fault.Invalid}, // it may be meant
		{"c/r/?/k", "a.aurora:4:101: job c/r/?/k: environment is missing", fault.Invalid},    // as a list shows it
		{"c/r/?/a", "environment is missing", fault.Invalid},
		{"c/r/test/m", "a.aurora:5:3: job ?/r/test/m: cluster is missing", fault.Invalid},
		{"c/r/production/o", "a.aurora:6:29: job c/r/production/o: environment is wrong", fault.Invalid},
		{"c/r/prod/o", "a.aurora:6:29: job c/r/production/o: environment is wrong", fault.Invalid},
		{"c/s/prod/k", "the file has no job", fault.NotFound},
		{"c/r/prod/bad", "instances is 0", fault.Invalid},
	} {
		e, err := f.Select(tc.key)
		if tc.want == "" {
			if err != nil || e.Key != "r/prod/a" {
				t.Errorf("%s: got %s, %v", tc.key, e.Key, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) || fault.Of(err) != tc.kind {
			t.Errorf("%s: got %v (%v), want %v with %q", tc.key, err, fault.Of(err), tc.kind, tc.want)
		}
	}
	b := one("jobs = [Job(cluster = c, role = 'r', environment = 'prod', name = 'n', task = SimpleTask('t', 'x')) for c in ('east', 'west')]")
	b.Cluster = "east"
	es := eval(t, b)
	if es[0].Err != nil || es[1].Err == nil {
		t.Errorf("with the cluster east: got %v, %v; want only the second refused", es[0].Err, es[1].Err)
	}
}

// TestFileLimit: every file of a configuration may have as much as any other,
// whoever reads it.
func TestFileLimit(t *testing.T) {
	l := spec.DefaultLimits()
	for name, files := range map[string]map[string]string{
		"main":  {"a.aurora": "x = 1 # " + strings.Repeat("x", l.Program.FileBytes)},
		"other": {"a.aurora": "x = open('data.txt').read()\njobs = []", "data.txt": strings.Repeat("x", l.Program.FileBytes+1)},
	} {
		b := spec.Bundle{Main: "a.aurora", Files: map[string][]byte{}}
		for n, text := range files {
			b.Files[n] = []byte(text)
		}
		load := func(n string) ([]byte, error) { return b.Files[n], nil }
		const want = "it has more than 1 MiB; a file of a configuration may have at most so much"
		_, _, here := spec.Collect("a.aurora", "me", nil, load, l)
		_, there := spec.Eval(b, l)
		for where, err := range map[string]error{"here": here, "there": there} {
			if fault.Of(err) != fault.Invalid || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v; want kind invalid and %q", name, where, err, want)
			}
		}
	}
}
