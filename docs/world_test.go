package docs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a run.
const (
	blockLimit = 60 * time.Second
	devLimit   = 40 * time.Second // until the examples run, on a machine that has much else to do
	stopLimit  = 30 * time.Second
	written    = "127.0.0.1:8081" // where the pages say that the server is
)

// A world is where the pages are run: a home, a covey dev and, for root, a
// set of processes and a network that nobody else is in.
type world struct {
	bin, home, work string
	address         string // where the server is, in place of written
	alone           string // why the world is not its own; empty: it is
	keeper          *exec.Cmd
	devCmd          *exec.Cmd
	devOut          *buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{bin: filepath.Join(dir, "bin"), home: filepath.Join(dir, "home"), work: filepath.Join(dir, "work"), address: written, devOut: &buffer{}}
	for _, d := range []string{w.bin, w.home, w.work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "examples"), filepath.Join(w.work, "examples")); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(w.bin, "covey"), "./cmd/covey")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build covey: %v\n%s", err, out)
	}
	if w.alone = w.own(t); w.alone != "" {
		t.Logf("the world is shared: %s", w.alone)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.address = l.Addr().String()
		l.Close()
	}
	return w
}

// own makes processes and a network that are the test's own: then a page may
// name a port or look for a process, whatever else runs on the machine. When
// its keeper is killed, the kernel ends all that is in it.
func (w *world) own(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "needs root: tasks are not isolated without it"
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		return "this machine has no cgroups"
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return "this machine has no nsenter"
	}
	ready, gate, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	// Its standard input is a pipe of this test's: it ends when the test does.
	keeper := exec.Command("bash", "-c", "mount --make-rprivate / && mount -t proc proc /proc && echo ready && while read -r _; do :; done")
	if _, err = keeper.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	keeper.Stdout, keeper.Stderr = gate, gate
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread is in another network and ends with this goroutine
		started <- errors.Join(ownNetwork(), keeper.Start())
	}()
	err = <-started
	gate.Close()
	if err != nil {
		return "the kernel gives no namespaces: " + err.Error()
	}
	w.keeper = keeper
	t.Cleanup(func() {
		_ = keeper.Process.Kill()
		_ = keeper.Wait()
	})
	said := make([]byte, 256)
	if n, _ := ready.Read(said); strings.TrimSpace(string(said[:n])) != "ready" {
		return "the kernel gives no processes of one's own: " + string(said[:n])
	}
	return ""
}

// ownNetwork puts the calling thread into a network that has loopback alone.
func ownNetwork() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// here puts the server's address into what a page says.
func (w *world) here(s string) string { return strings.ReplaceAll(s, written, w.address) }

// command returns a command inside the world.
func (w *world) command(args ...string) *exec.Cmd {
	if w.keeper != nil && w.alone == "" {
		args = append([]string{"nsenter", "-t", strconv.Itoa(w.keeper.Process.Pid), "-p", "-m", "-n", "--wd=" + w.work, "--"}, args...)
	}
	if args[0] == "covey" { // a path of the world's, not of this process
		args[0] = filepath.Join(w.bin, args[0])
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = w.work
	cmd.Env = []string{
		"PATH=" + w.bin + ":" + os.Getenv("PATH"), "HOME=" + w.home, "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TMPDIR=" + w.work,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs the shell of a block once. One that follows is interrupted when it
// has printed what it should.
func (w *world) run(ctx context.Context, b block, want *regexp.Regexp) (printed string, code int, err error) {
	// As a file, so that a page that looks for a process does not find itself.
	script := filepath.Join(w.home, "block.sh")
	if err := os.WriteFile(script, []byte(w.here(b.sh)), 0o600); err != nil {
		return "", 0, err
	}
	out := &buffer{}
	cmd := w.command("bash", "-e", script)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	told := false
	for {
		select {
		case err := <-done:
			if e, ok := errors.AsType[*exec.ExitError](err); ok {
				return out.String(), exitCode(e), nil
			}
			return out.String(), 0, err
		case <-ctx.Done():
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-done
			return out.String(), 0, fmt.Errorf("it did not end within %v", blockLimit)
		case <-tick.C:
			if b.follow && !told && want.MatchString(squeeze(out.String())) {
				told = true
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
			}
		}
	}
}

// exitCode is what a shell would say: an interrupted bash ends by its signal.
func exitCode(e *exec.ExitError) int {
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return e.ExitCode()
}

// dev starts what make dev starts.
func (w *world) dev(t *testing.T) {
	t.Helper()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	recipe := regexp.MustCompile(`(?m)^\t@?exec bin/(covey dev .*)$`).FindSubmatch(makefile)
	if recipe == nil {
		t.Fatal("the Makefile does not say how dev is started; want a line exec bin/covey dev ...")
	}
	args := strings.Fields(string(recipe[1]))
	if w.address != written {
		args = append(args, "--listen", w.address)
	}
	cmd := w.command(args...)
	cmd.Stdout, cmd.Stderr = w.devOut, w.devOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.devCmd = cmd
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() { // when the test has failed before the end
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		select {
		case <-done:
		case <-time.After(stopLimit):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-done
		}
		if t.Failed() {
			t.Logf("covey dev said:\n%s", w.devOut)
		}
	})
	began := time.Now()
	for !strings.Contains(w.devOut.String(), "next, in another terminal") {
		select {
		case <-done:
			t.Fatalf("covey dev ended:\n%s", w.devOut)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(began) > devLimit {
			t.Fatalf("covey dev is not ready after %v:\n%s", devLimit, w.devOut)
		}
	}
	t.Logf("the examples were up after %v", time.Since(began).Round(time.Millisecond))
	for _, want := range []string{"dev/ads/prod/bidder +1 RUNNING", "dev/ads/devel/report +1 RUNNING", "dev/search/prod/index +2 RUNNING", "dev/www-data/prod/site +1 RUNNING", "dev/www-data/staging/site +1 RUNNING"} {
		if !regexp.MustCompile(want).MatchString(w.devOut.String()) {
			t.Errorf("covey dev does not say %q:\n%s", want, w.devOut)
		}
	}
}

// end stops dev as Ctrl-C does, and looks for what it left.
func (w *world) end(t *testing.T) {
	t.Helper()
	began := time.Now()
	_ = syscall.Kill(-w.devCmd.Process.Pid, syscall.SIGINT)
	for time.Since(began) < stopLimit {
		if syscall.Kill(w.devCmd.Process.Pid, 0) != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if w.alone != "" {
		return
	}
	for {
		out, err := w.command("bash", "-c", `for p in /proc/[0-9]*; do [ "$p" = /proc/$$ ] || tr '\0' ' ' < $p/cmdline; done`).Output()
		left := strings.TrimSpace(strings.ReplaceAll(string(out), strings.Join(w.keeper.Args, " "), ""))
		switch {
		case err == nil && left == "":
			return
		case time.Since(began) > stopLimit:
			t.Fatalf("%v after Ctrl-C these still run (%v): %s", stopLimit, err, left)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// buffer collects what a command prints while others read it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
