// Package evaluate runs the configuration language in a child process of this
// same program, so that a hostile file can use up no more than the child's
// memory and time. The command line and the server evaluate through it, and
// therefore get the same bytes.
package evaluate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/spec"
)

// Command is the hidden command by which the program becomes the child.
const Command = "__eval"

// Limits of the child.
const (
	memory  = 1 << 30          // bytes that it may write to
	seconds = 20               // of CPU
	limit   = 30 * time.Second // by the wall
	maxIn   = 64 << 20         // bytes of a request
	maxOut  = 64 << 20         // bytes of an answer
)

// A Request is one evaluation.
type Request struct {
	Main    string            `json:"main"`
	Files   map[string][]byte `json:"files,omitzero"` // nil: the child reads them from Dir and collects them
	Dir     string            `json:"dir,omitzero"`
	User    string            `json:"user,omitzero"`
	Binds   []string          `json:"binds,omitzero"`
	Cluster string            `json:"cluster,omitzero"` // when set, jobs of other clusters are listed but not lowered
	Key     string            `json:"key,omitzero"`     // when set, only this job (cluster/role/env/name) is returned
}

// A Result is what a configuration says.
type Result struct {
	Files map[string][]byte `json:"files,omitzero"` // that were collected
	Hooks []string          `json:"hooks,omitzero"` // classes of client hooks, which are not run
	Jobs  []Job             `json:"jobs,omitzero"`
}

// A Job is one job of a configuration.
type Job struct {
	Cluster string          `json:"cluster"`
	Key     string          `json:"key"` // role/env/name
	At      string          `json:"at"`  // file:line:col
	Job     job.Job         `json:"job"`
	Raw     json.RawMessage `json:"raw,omitzero"`   // in Aurora's form
	Error   string          `json:"error,omitzero"` // why it cannot run
}

// answer is what the child writes.
type answer struct {
	Result Result     `json:"result"`
	Kind   fault.Kind `json:"kind"`
	Error  string     `json:"error,omitzero"`
}

// Run evaluates r in a child process of the program exe. Errors of kind
// Invalid or NotFound are the configuration's; Unavailable: the child was
// killed, or ctx ended.
func Run(ctx context.Context, exe string, r Request) (Result, error) {
	c, err := Prepare(exe)
	if err != nil {
		return Result{}, err
	}
	return c.Run(ctx, r)
}

// A Child is a process that waits for one request. It ends with whoever
// prepared it.
type Child struct {
	cmd        *exec.Cmd
	in         io.WriteCloser
	out, noise *bounded
}

// Prepare starts a child of the program exe.
func Prepare(exe string) (*Child, error) {
	c := &Child{cmd: exec.Command(exe, Command), out: &bounded{most: maxOut}, noise: &bounded{most: 4 << 10}} //nolint:gosec,noctx // this program itself; Run ends it
	c.cmd.Env = []string{"GOMEMLIMIT=768MiB", "GOMAXPROCS=2", "GOTRACEBACK=none"}
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.WaitDelay = c.out, c.noise, 10*time.Second
	var err error
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, fault.Unavailable.Errorf("evaluate: a child process could not be started: %w", err)
	}
	return c, nil
}

// Close ends a child that is not needed any more.
func (c *Child) Close() {
	_ = c.in.Close()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// Run evaluates r; the child is used up.
func (c *Child) Run(ctx context.Context, r Request) (Result, error) {
	in, err := json.Marshal(r)
	if err != nil {
		c.Close()
		return Result{}, fault.Internal.Errorf("evaluate: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	_, _ = c.in.Write(in) // a child that does not read says why in its end
	_ = c.in.Close()
	err = c.cmd.Wait()
	stop()
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return Result{}, fault.Invalid.Errorf("%s was not evaluated in %v; make it do less", r.Main, limit)
	}
	if ctx.Err() != nil {
		return Result{}, fault.Unavailable.Errorf("evaluation of %s was ended: %w", r.Main, ctx.Err())
	}
	return c.answer(r, err)
}

// answer reads what the child left, given how it ended.
func (c *Child) answer(r Request, err error) (Result, error) {
	var a answer
	if err == nil {
		err = json.Unmarshal(c.out.Bytes(), &a)
	}
	if err != nil {
		if spent(c.cmd, c.noise.String()) {
			return Result{}, fault.Invalid.Errorf("%s needs more than %d s or %d MiB to evaluate; make it do less", r.Main, seconds, memory>>20)
		}
		if signaled(c.cmd, syscall.SIGKILL, syscall.SIGTERM) {
			return Result{}, fault.Unavailable.Errorf("the process that evaluates %s was killed from outside; try again", r.Main)
		}
		return Result{}, fault.Internal.Errorf("the evaluation of %s failed: %w: %.300s", r.Main, err, c.noise.String())
	}
	if a.Error != "" {
		return Result{}, a.Kind.Errorf("%s", a.Error)
	}
	return a.Result, nil
}

// One evaluates a bundle in a new child of the program exe; see [Child.One].
func One(ctx context.Context, exe string, r Request) (string, job.Job, error) {
	c, err := Prepare(exe)
	if err != nil {
		return "", job.Job{}, err
	}
	return c.One(ctx, r)
}

// One evaluates a bundle and returns the cluster and the job of one key.
func (c *Child) One(ctx context.Context, r Request) (string, job.Job, error) {
	res, err := c.Run(ctx, r)
	if err != nil {
		return "", job.Job{}, err
	}
	if len(res.Jobs) != 1 {
		return "", job.Job{}, fault.Internal.Errorf("%d jobs for the key %s", len(res.Jobs), r.Key)
	}
	return res.Jobs[0].Cluster, res.Jobs[0].Job, nil
}

// spent reports whether a child ended because it used up what it may use.
func spent(cmd *exec.Cmd, noise string) bool {
	if strings.Contains(noise, "out of memory") || strings.Contains(noise, "cannot allocate memory") {
		return true
	}
	const nearly = (seconds - 1) * time.Second // the kernel counts in ticks
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return signaled(cmd, syscall.SIGXCPU) || signaled(cmd, syscall.SIGKILL) && used >= nearly
}

// signaled reports whether a child was ended by one of the signals.
func signaled(cmd *exec.Cmd, by ...syscall.Signal) bool {
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && slices.Contains(by, ws.Signal())
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	bytes.Buffer
	most int
}

// Write takes all and keeps what has room.
func (b *bounded) Write(p []byte) (int, error) {
	if room := b.most - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// Main is the child: it reads a request from in and writes the answer to out.
// It returns the exit code of the program.
func Main(in io.Reader, out io.Writer) int {
	for _, l := range [...]struct {
		what int
		most uint64
	}{{syscall.RLIMIT_CPU, seconds}, {syscall.RLIMIT_DATA, memory}, {syscall.RLIMIT_CORE, 0}, {syscall.RLIMIT_FSIZE, 0}} {
		if err := syscall.Setrlimit(l.what, &syscall.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return answered(out, Result{}, fault.Internal.Errorf("evaluate: set limit %d: %w", l.what, err))
		}
	}
	var r Request
	if err := json.NewDecoder(io.LimitReader(in, maxIn)).Decode(&r); err != nil {
		return answered(out, Result{}, fault.Internal.Errorf("evaluate: read the request: %w", err))
	}
	res, err := Evaluate(r)
	return answered(out, res, err)
}

func answered(out io.Writer, res Result, err error) int {
	a := answer{Result: res}
	if err != nil {
		a = answer{Kind: fault.Of(err), Error: err.Error()}
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return 1
	}
	return 0
}

// Evaluate does what [Run] does, in this process and without its limits.
func Evaluate(r Request) (Result, error) {
	limits := spec.DefaultLimits()
	var res Result
	var f *spec.File
	var err error
	if r.Files == nil {
		var b spec.Bundle
		b, f, err = spec.Collect(r.Main, r.User, r.Binds, loader(r.Dir, r.Main, limits.Program.FileBytes), limits)
		res.Files = b.Files
		if err == nil && r.Cluster != "" {
			b.Cluster = r.Cluster
			f, err = spec.Eval(b, limits)
		}
	} else {
		f, err = spec.Eval(spec.Bundle{Main: r.Main, Files: r.Files, User: r.User, Binds: r.Binds, Cluster: r.Cluster}, limits)
	}
	if err != nil {
		return Result{}, err
	}
	res.Hooks = f.Hooks
	if r.Key != "" {
		e, err := f.Select(r.Key)
		if err != nil {
			return Result{}, err
		}
		res.Jobs = []Job{jobOf(e)}
		return res, nil
	}
	for _, e := range f.Jobs() {
		res.Jobs = append(res.Jobs, jobOf(e))
	}
	return res, nil
}

func jobOf(e spec.Entry) Job {
	j := Job{Cluster: e.Cluster, Key: e.Key, At: e.At, Job: e.Job, Raw: e.Raw}
	if e.Err != nil {
		j.Error = e.Err.Error()
	}
	return j
}

// loader reads the files that a configuration names: relative ones from where
// the user stands, absolute ones only beside the main file, so that a file
// from a stranger carries no other file of this machine to a server. Of a file
// with more than most bytes it reads one more, and spec refuses it.
func loader(dir, main string, most int) spec.Loader {
	return func(name string) ([]byte, error) {
		full := filepath.FromSlash(name)
		if filepath.IsAbs(full) {
			home := filepath.Dir(filepath.Clean(main))
			if rel, err := filepath.Rel(home, full); err != nil || !filepath.IsAbs(home) || strings.HasPrefix(rel, "..") {
				return nil, fmt.Errorf("%s is not below %s, the directory of the configuration, so it is not sent along; want a file there, by a relative path", full, home)
			}
		} else {
			full = filepath.Join(dir, full)
		}
		return readSmall(full, most+1)
	}
}

// readSmall reads the first bytes of a regular file, at most so many.
func readSmall(name string, most int) ([]byte, error) {
	// Without NONBLOCK a pipe that nobody writes to would wait for ever.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the user names the file
	if err != nil {
		return nil, reason(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, reason(err)
	case info.IsDir():
		return nil, errors.New("it is a folder; want a file")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(most)))
	return b, reason(err)
}

// reason is an error without the path, which the caller names.
func reason(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
