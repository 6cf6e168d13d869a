package runtime

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inVM are the tests that run once more on a kernel with cgroups of version 2
// alone, whatever this machine has: each limit, and each way to an end.
var inVM = []string{
	"TestHello", "TestLimitsWritten", "TestCPULimit", "TestMemoryHog", "TestForkBomb",
	"TestDaemonGone", "TestGroupKill", "TestNotDelegated", "TestStop", "TestKillDeafSupervisor", "TestInitKilled",
	"TestSupervisorKilled", "TestSupervisorKilledWhileAgentIsAway", "TestAgentKilled", "TestOverhead",
}

const (
	vmWithin = 12 * time.Minute // for the machine to have come and gone
	vmOutput = 4 << 20          // bytes of its console that are read
	vmHint   = "SKIPPED: %v; `make vm` as root on a Debian machine brings what is needed"
)

// TestCgroupV2InVM runs this package's tests in a virtual machine without disk
// or network.
func TestCgroupV2InVM(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short; a virtual machine takes a minute")
	}
	p, err := findVM()
	if err != nil {
		t.Skipf(vmHint, err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), vmWithin)
	defer cancel()
	p.tests = filepath.Join(dir, "runtime.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags=-s -w", "-o", p.tests, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	p.files = filepath.Join(dir, "initramfs")
	if err = p.pack("^(" + strings.Join(inVM, "|") + ")$"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c, err := p.boot(ctx)
	if err != nil {
		t.Fatalf("virtual machine: %v\n%s", err, c.text())
	}
	t.Logf("%s, %.0f s", c.kernel, time.Since(began).Seconds())
	for _, name := range inVM {
		t.Run(name, func(t *testing.T) {
			switch r := c.tests[name]; r.verdict {
			case "PASS":
				t.Logf("%s inside", r.took)
			case "SKIP":
				t.Skip(r.said)
			case "FAIL":
				t.Errorf("fails with cgroups of version 2:\n%s", r.said)
			default:
				t.Errorf("did not come to an end; the console says:\n%s", c.text())
			}
		})
	}
	if want := "VM tests ended with status 0"; c.status != want {
		t.Errorf("got %q, want %q", c.status, want)
	}
}

// vm is what a virtual machine is made of: paths of files.
type vm struct {
	qemu, busybox, kernel string // of this machine
	tests, files          string // made by the test
}

// findVM looks for the parts; the error says which is missing.
func findVM() (vm, error) {
	var p vm
	if goruntime.GOARCH != "amd64" {
		return p, fmt.Errorf("the virtual machine is an amd64, this is %s", goruntime.GOARCH)
	}
	var err error
	if p.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return p, fmt.Errorf("no qemu-system-x86_64: %w", err)
	}
	if p.busybox, err = exec.LookPath("busybox"); err != nil {
		return p, fmt.Errorf("no busybox: %w", err)
	}
	f, err := elf.Open(p.busybox)
	if err != nil {
		return p, fmt.Errorf("%s: %w", p.busybox, err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(g *elf.Prog) bool { return g.Type == elf.PT_INTERP }) {
		return p, fmt.Errorf("%s is not static: want that of busybox-static", p.busybox)
	}
	if p.kernel = os.Getenv("COVEY_VM_KERNEL"); p.kernel == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return p, fmt.Errorf("no kernel: %w", err)
		}
		p.kernel = filepath.Join(cache, "covey", "vm", "vmlinuz")
	}
	if _, err := os.Stat(p.kernel); err != nil {
		return p, fmt.Errorf("no kernel: %w", err)
	}
	return p, nil
}

// pack writes the machine's only file system.
func (p vm) pack(pattern string) error {
	applets, err := exec.Command(p.busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", p.busybox, err)
	}
	var all bytes.Buffer
	a := archive{w: &all}
	for _, d := range []string{"bin", "etc", "new"} {
		a.add(d, 0o040755, nil)
	}
	for name, from := range map[string]string{"init": "testdata/vm/init", "bin/busybox": p.busybox, "bin/runtime.test": p.tests} {
		var b []byte
		if b, err = os.ReadFile(from); err != nil {
			return err
		}
		a.add(name, 0o100755, b)
	}
	a.add("tests", 0o100644, []byte(pattern))
	a.add("etc/passwd", 0o100644, []byte("root:x:0:0::/:/bin/sh\n"))
	a.add("etc/group", 0o100644, []byte("root:x:0:\n"))
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			a.add("bin/"+name, 0o120777, []byte("busybox"))
		}
	}
	a.add("TRAILER!!!", 0, nil)
	return os.WriteFile(p.files, all.Bytes(), 0o600)
}

// archive writes the format in which the kernel takes its first files: cpio,
// "newc", as Documentation/driver-api/early-userspace/buffer-format of Linux
// has it.
type archive struct {
	w    *bytes.Buffer
	last int // number of the last file
}

func (a *archive) add(name string, mode uint32, content []byte) {
	a.last++
	a.w.WriteString("070701")
	for _, v := range []int{a.last, int(mode), 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(a.w, "%08X", v)
	}
	a.w.WriteString(name + "\x00")
	a.pad()
	a.w.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.w.Len()%4 != 0 {
		a.w.WriteByte(0)
	}
}

// boot runs the machine until it switches itself off.
func (p vm) boot(ctx context.Context) (console, error) {
	// One thread for both processors: the kernel writes over its own code, as when
	// the first group gets a limit of cpu time, and with a thread for each a
	// processor of TCG can stay at the old code for ever.
	//
	// Should this process be killed, the machine goes too; the kernel ties that
	// to the thread, which ends with the test.
	goruntime.LockOSThread()
	cmd := exec.CommandContext(ctx, p.qemu, "-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", p.kernel, "-initrd", p.files,
		"-append", "console=ttyS0 loglevel=1 panic=-1 rdinit=/init")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return console{}, err
	}
	if err := cmd.Start(); err != nil {
		return console{}, err
	}
	c := readConsole(io.LimitReader(out, vmOutput))
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		return c, fmt.Errorf("%w %s", err, &errs)
	}
	return c, nil
}

// console is what the machine said.
type console struct {
	lines          []string
	kernel, status string
	tests          map[string]verdict
}

type verdict struct{ verdict, took, said string }

// readConsole takes the output of `go test -v` apart, which prints what a test
// said before its verdict or indented below it.
func readConsole(r io.Reader) console {
	c := console{tests: map[string]verdict{}}
	said, current := []string(nil), ""
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, vmOutput)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		c.lines = append(c.lines, line)
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "VM kernel "):
			c.kernel = strings.TrimPrefix(line, "VM ")
		case strings.HasPrefix(line, "VM tests "):
			c.status = line
		case strings.HasPrefix(line, "=== RUN") && len(f) == 3:
			current, said = f[2], nil
		case strings.HasPrefix(line, "--- ") && len(f) == 4 && f[2] == current:
			c.tests[current] = verdict{strings.TrimSuffix(f[1], ":"), strings.Trim(f[3], "()"), strings.Join(said, "\n")}
		default:
			said = append(said, line)
		}
	}
	return c
}

func (c console) text() string { return strings.Join(c.lines[max(len(c.lines)-200, 0):], "\n") }
