// Package e2e tries the whole of covey from the outside: the real binary, real
// processes, real cgroups. What it believes is what the kernel says (a process
// id with its start time) and what tasks write down themselves; the API is
// only asked whether it says the same.
//
// Every process that a test starts is ended by it, by process id. At the end
// nothing is left: no process, no cgroup, no mount.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	binary  string // the program under test
	base    string // directory of all worlds, that every user may enter
	witness string // this test's own binary, for tasks
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == witnessArg {
		os.Exit(witnessMain(os.Args[2:]))
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	var err error
	if base, err = os.MkdirTemp("/tmp", "covey-e2e-"); err != nil {
		return fail(err)
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		return fail(err)
	}
	binary = filepath.Join(base, "covey")
	if err := build(binary); err != nil {
		return fail(err)
	}
	witness = filepath.Join(base, "witness")
	if err := copyFile("/proc/self/exe", witness, 0o755); err != nil {
		return fail(err)
	}
	// The tests wait more than they work.
	if err := flag.Set("test.parallel", "3"); err != nil {
		return fail(err)
	}
	code := m.Run()
	if left := leaks(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "e2e: the tests left something behind:\n%s\n", strings.Join(left, "\n"))
		code = max(code, 1)
	}
	return code
}

// build builds covey as program.
func build(program string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", program}, flags...), "../cmd/covey")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// leaks lists what is still there of any world, for as long as it takes until
// nothing is, within reason.
func leaks() []string {
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(pollEvery) {
		left = append(processesOf(base), mountsBelow(base)...)
		for _, uid := range allUIDs() {
			left = append(left, cgroupsOf(uid)...)
		}
		if len(left) == 0 {
			return nil
		}
	}
	return left
}

// needRoot skips a test that has nothing to try without root.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: cgroups, namespaces and other users")
	}
	if len(cgroupRoots()) == 0 {
		t.Skip("needs cgroups, and none is mounted at /sys/fs/cgroup")
	}
}

func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}

const pollEvery = 20 * time.Millisecond

// eventually waits until look returns nothing. Until then it returns what it
// sees instead.
func eventually(t testing.TB, within time.Duration, what string, look func() string) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		got := look()
		if got == "" {
			return time.Since(began)
		}
		if time.Since(began) > within {
			t.Fatalf("%s: not within %v; got %s", what, within, got)
		}
		time.Sleep(pollEvery)
	}
}
