// Package agentd is the shell around a machine's mind: it holds the connection
// to the leader, starts and stops tasks as told, tells what it sees, and keeps
// the journal of what the tasks used. It may die at any moment; the tasks do
// not notice, and the next one goes on.
package agentd

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/trust"
	"github.com/covey-platform/covey/internal/unit"
)

// A Config says how an agent runs.
type Config struct {
	Server     string   // URL of the server
	Servers    []string // of further ones of the same cluster
	CAFile     string   // who may sign the server's certificate; empty: as joining found out
	DataDir    string   // the tasks, the journal and the agent's identity; made when missing
	JoinToken  string   // lets a new machine in, once; not needed afterwards
	Machine    string   // the machine's name in the cluster; empty: the host's name
	Host       string   // where its tasks' ports are reached; empty: 127.0.0.1
	Attributes []machine.Attribute
	Capacity   unit.Resources // zero measures are found out
	Share      int            // of what was found out, one part in so many is this agent's; 0: all
	Overhead   unit.Resources // kept back at least; measures that are zero: a default
	Ports      machine.PortRange
	Reduced    bool // do without isolation
	Self       string
	Hide       []string // directories that no task may see
	Version    string
	Log        *slog.Logger

	KeepFor   time.Duration // ended sandboxes are kept for so long; 0: a day
	KeepBytes int64         // and together so much of them; 0: a tenth of the disk, and 10 GiB at most

	// StopTasks, when it is closed, makes the agent stop every task and return.
	StopTasks <-chan struct{}
	// KillTasks does the same and does not wait for them to stop in order.
	KillTasks <-chan struct{}

	renewed func(sent time.Duration) // the leader prolonged the lease
}

// Defaults of a machine.
const (
	defaultKeepFor = 24 * time.Hour
	maxKeepBytes   = 10 << 30
	keepLeast      = time.Minute // ended sandboxes are kept for so long if there is room, whatever their size
	keepPart       = 10          // ended sandboxes may have one part in so many of the disk
	marginPart     = 50          // and what was promised has one part in so many more than it needs
	maxMargin      = 1 << 30     // and at most so much
	portFrom       = 31000
	portTo         = 32000
)

func (c *Config) complete() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Machine == "" {
		h, err := os.Hostname()
		if err != nil {
			return fault.Invalid.Errorf("the machine has no name: %w; give it one with --machine", err)
		}
		c.Machine, _, _ = strings.Cut(h, ".")
	}
	if err := name.Valid("machine", c.Machine); err != nil {
		return fault.Invalid.Errorf("%w", err)
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil || c.DataDir == "" {
		return fault.Invalid.Errorf("data directory %q cannot be used; name one with --data-dir", c.DataDir)
	}
	c.DataDir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrNotExist) { // no directory can be there
			return fault.Invalid.Errorf("data directory %s cannot be made: %w; name another with --data-dir", dir, err)
		}
		return fault.Denied.Errorf("data directory %s cannot be made: %w; name another with --data-dir, or make it writable for this user", dir, err)
	}
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if err := reachable(c.Host); err != nil {
		return err
	}
	if c.Ports.Len() == 0 {
		c.Ports = machine.PortRange{From: portFrom, To: portTo}
	}
	return c.measure()
}

// keepEnded says what is kept of ended tasks, once it is known what the
// machine offers.
func (c *Config) keepEnded() runtime.Keep {
	k := runtime.Keep{Age: c.KeepFor, Bytes: c.KeepBytes, Least: keepLeast, Margin: min(c.Capacity.Disk/marginPart, maxMargin)}
	if k.Age == 0 {
		k.Age = defaultKeepFor
	}
	if k.Bytes == 0 {
		k.Bytes = min(c.Capacity.Disk/keepPart, maxKeepBytes)
	}
	if c.Share > 1 {
		k.Share = c.Capacity.Disk
	}
	return k
}

// maxHost bounds a host's name, as DNS does.
const maxHost = 253

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// reachable refuses what is no address at which others could reach a port.
func reachable(host string) error {
	want := "want an IP address or a host's name, without a port, such as 10.0.0.7 or node7.example.com"
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && (ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != ""):
		return fault.Invalid.Errorf("--host %s: nobody can be reached there; %s", host, want)
	case err != nil && (len(host) > maxHost || !hostName.MatchString(host)):
		return fault.Invalid.Errorf("--host %.100q; %s", host, want)
	}
	return nil
}

// measure finds out what the machine has, where nobody said.
func (c *Config) measure() error {
	share := int64(max(c.Share, 1))
	if c.Capacity.CPU == 0 {
		c.Capacity.CPU = int64(goruntime.NumCPU()) * 1000 / share
	}
	if c.Capacity.RAM == 0 {
		var si unix.Sysinfo_t
		if err := unix.Sysinfo(&si); err != nil {
			return fault.Internal.Errorf("memory of this machine: %w; say it with --ram", err)
		}
		c.Capacity.RAM = int64(si.Totalram) * int64(si.Unit) / share
	}
	if c.Capacity.Disk == 0 {
		free, err := c.findDisk()
		if err != nil {
			return err
		}
		c.Capacity.Disk = free / share
	}
	c.Capacity = c.Capacity.Whole()
	reserve := unit.Resources{CPU: min(c.Capacity.CPU/20, 500), RAM: min(c.Capacity.RAM/20, 1<<30), Disk: min(c.Capacity.Disk/20, 10<<30)}.Whole()
	for _, m := range []struct {
		into    *int64
		reserve int64
	}{{&c.Overhead.CPU, reserve.CPU}, {&c.Overhead.RAM, reserve.RAM}, {&c.Overhead.Disk, reserve.Disk}} {
		if *m.into == 0 {
			*m.into = m.reserve
		}
	}
	return nil
}

// describe returns the machine as the leader is told.
func (c *Config) describe(boot string, limits []string) machine.Machine {
	attrs := append([]machine.Attribute{{Name: "host", Value: c.Machine}}, c.Attributes...)
	slices.SortFunc(attrs, func(a, b machine.Attribute) int {
		return strings.Compare(a.Name+"\x00"+a.Value, b.Name+"\x00"+b.Value)
	})
	return machine.Machine{
		ID: machine.ID(c.Machine), Host: c.Host, Attributes: slices.Compact(attrs), Capacity: c.Capacity, Overhead: c.Overhead,
		Ports: c.Ports, Boot: boot, Limits: limits,
	}
}

// identity is who the agent is: DataDir/agent.json.
type identity struct {
	format.Fields
	Version    int        `json:"version"`
	UID        string     `json:"cluster_uid"`
	Cluster    string     `json:"cluster_name"`
	Machine    string     `json:"machine"`
	Credential string     `json:"credential"`
	Seen       agent.Seen `json:"seen"`
	Servers    []string   `json:"servers,omitempty"` // of the cluster, as the leader told
	Kept       kept       `json:"kept,omitzero"`     // back for the agent and the supervisors

	unknown map[string]json.RawMessage // fields of the file that a newer agent wrote
}

const (
	identityFile    = "agent.json"
	identityVersion = 1 + format.Ahead
)

// identify reads who the agent is, or joins the cluster with a token.
func identify(ctx context.Context, cfg Config) (identity, error) {
	path := filepath.Join(cfg.DataDir, identityFile)
	data, err := os.ReadFile(path) //nolint:gosec // a path of our own making
	if err == nil {
		return readIdentity(cfg, path, data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return identity{}, fault.Denied.Errorf("the agent's identity: %w", err)
	}
	if cfg.JoinToken == "" {
		return identity{}, fault.Unauthenticated.Errorf("machine %s has joined no cluster yet; make a token with covey token create --kind join and start the agent with --join-token-file", cfg.Machine)
	}
	roots, err := cfg.named()
	if err != nil {
		return identity{}, err
	}
	j, err := cfg.join(ctx, roots)
	if err != nil {
		return identity{}, err
	}
	if j.Root != nil {
		roots = []*x509.Certificate{j.Root}
	}
	if err := cfg.keep(j.Cert, roots); err != nil {
		return identity{}, err
	}
	id := identity{UID: j.UID, Cluster: j.Name, Machine: cfg.Machine, Credential: j.Credential}
	return id, id.write(cfg.DataDir, true)
}

// join trades the join token, at the first server that answers.
func (c *Config) join(ctx context.Context, roots []*x509.Certificate) (j rpc.Joined, err error) {
	for _, server := range append([]string{c.Server}, c.Servers...) {
		dial := rpc.AgentConfig{URL: server, Version: c.Version}
		if len(roots) > 0 {
			dial.Roots = trust.Pool(roots...)
		}
		a, bad := rpc.DialAgent(dial)
		if bad != nil {
			return j, bad
		}
		j, err = a.Join(ctx, c.JoinToken, machine.ID(c.Machine))
		a.Close()
		if err == nil || fault.Of(err) != fault.Unavailable {
			return j, err
		}
	}
	return j, err
}

func readIdentity(cfg Config, path string, data []byte) (identity, error) {
	var id identity
	err := json.Unmarshal(data, &id)
	if err == nil && id.UID == "" {
		err = errors.New("it names no cluster")
	}
	if err != nil {
		return id, fault.Invalid.Errorf("%s is damaged (%w); restore it from a backup, or remove it and join anew: the tasks of this machine are left alone meanwhile", path, err)
	}
	if id.Version > identityVersion+1 {
		return id, fault.Invalid.Errorf("%s has format %d, and this agent reads up to %d; start a newer agent", path, id.Version, identityVersion+1)
	}
	id.unknown = format.Unknown(data, id)
	if id.Machine != cfg.Machine {
		return id, fault.Conflict.Errorf("%s is of machine %s, not of %s; start with --machine %s, or with another data directory", path, id.Machine, cfg.Machine, id.Machine)
	}
	return id, nil
}

// write stores the identity whole or not at all.
func (id identity) write(dir string, durable bool) error {
	id.Version, id.Fields = identityVersion, format.Added()
	data, err := json.Marshal(id)
	if err == nil {
		data, err = format.Keep(data, id.unknown)
	}
	var b bytes.Buffer
	if err == nil {
		err = json.Indent(&b, data, "", "  ")
	}
	if err != nil {
		return fault.Internal.Errorf("the agent's identity: %w", err)
	}
	return replaceFile(filepath.Join(dir, identityFile), b.Bytes(), durable)
}

// replaceFile writes a file whole or not at all, for its owner only.
func replaceFile(path string, data []byte, durable bool) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // a path of our own making
	if err == nil {
		_, err = f.Write(data)
		if err == nil && durable {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil && durable {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fault.Exhausted.Errorf("%s cannot be written: %w; make room on its disk", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // a path of our own making
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockWait is how long the lock of an agent that was killed may live on: a
// child that it was just starting has it too, until it becomes its program.
const lockWait = 2 * time.Second

// lock keeps a second agent off the data directory, as long as this one lives.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, "agent.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, fault.Denied.Errorf("data directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for deadline := time.Now().Add(lockWait); errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.Conflict.Errorf("another agent uses %s; stop it, or start this one with another --data-dir", dir)
		}
		return nil, fault.Unavailable.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}
