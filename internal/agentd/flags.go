package agentd

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/govalues/decimal"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/unit"
)

// A Program is what an agent knows of the program it runs in.
type Program struct {
	Self    string // path of the binary, for supervisors
	Version string
	Err     io.Writer // logs
}

// Agent runs an agent as its flags say. SIGUSR2 makes it stop every task and
// end, and SIGUSR1 kill them; every other end leaves the tasks running.
func (p Program) Agent(ctx context.Context, f cli.AgentFlags) error {
	cfg, err := fromFlags(f)
	if err != nil {
		return err
	}
	cfg.Self, cfg.Version = p.Self, p.Version
	cfg.Log = slog.New(slog.NewTextHandler(p.Err, nil)).With("part", "agent")
	var done [2]func()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a log that nobody reads any more does not end the agent
	cfg.StopTasks, done[0] = onSignal(syscall.SIGUSR2)
	cfg.KillTasks, done[1] = onSignal(syscall.SIGUSR1)
	defer done[0]()
	defer done[1]()
	if err := Run(ctx, cfg); !Stopped(err) {
		return err
	}
	return nil
}

// onSignal returns a channel that is closed when the program gets a signal.
func onSignal(sig os.Signal) (got <-chan struct{}, done func()) {
	asked, over, c := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(asked, sig)
	go func() {
		select {
		case <-asked:
			close(c)
		case <-over:
		}
	}()
	return c, func() {
		signal.Stop(asked)
		close(over)
	}
}

func fromFlags(f cli.AgentFlags) (Config, error) {
	servers := strings.Split(f.Server, ",")
	c := Config{Server: servers[0], Servers: servers[1:], CAFile: f.CAFile, DataDir: f.DataDir, Machine: f.Machine, Host: f.Host, Hide: f.Hide}
	for _, n := range slices.Sorted(maps.Keys(f.Attributes)) {
		if err := name.ValidLabel("name", n); err != nil {
			return c, fault.Invalid.Errorf("--attribute: %w", err)
		}
		for _, v := range f.Attributes[n] {
			c.Attributes = append(c.Attributes, machine.Attribute{Name: n, Value: v})
		}
	}
	for _, q := range []struct {
		flag, text string
		into       *int64
		parse      func(string) (int64, error)
	}{
		{"--cpu", f.CPU, &c.Capacity.CPU, parseCores},
		{"--ram", f.RAM, &c.Capacity.RAM, parseBytes},
		{"--disk", f.Disk, &c.Capacity.Disk, parseBytes},
		{"--net", f.Net, &c.Capacity.Net, parseBits},
		{"--overhead-cpu", f.OverheadCPU, &c.Overhead.CPU, parseCores},
		{"--overhead-ram", f.OverheadRAM, &c.Overhead.RAM, parseBytes},
		{"--keep-bytes", f.KeepBytes, &c.KeepBytes, parseBytes},
	} {
		if q.text == "" {
			continue
		}
		n, err := q.parse(q.text)
		if err != nil {
			return c, fault.Invalid.Errorf("%s %.40q: %w", q.flag, q.text, err)
		}
		*q.into = n
	}
	if f.GPUs < 0 || f.GPUs > maxGPUs {
		return c, fault.Invalid.Errorf("--gpus %d; want 0 to %d", f.GPUs, maxGPUs)
	}
	c.KeepFor = f.KeepFor
	c.Capacity.GPU = int64(f.GPUs) * 1000
	c.Share = f.Share
	if f.Ports != "" {
		from, to, ok := strings.Cut(f.Ports, "-")
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if !ok || err1 != nil || err2 != nil || a < 1024 || b < a {
			return c, fault.Invalid.Errorf("--ports %.40q; want FROM-TO between 1024 and 65535", f.Ports)
		}
		c.Ports = machine.PortRange{From: uint16(a), To: uint16(b)}
	}
	return c, c.readToken(f.JoinTokenFile)
}

func (c *Config) readToken(file string) error {
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file) //nolint:gosec // the user names it
	if err != nil {
		return fault.Invalid.Errorf("--join-token-file: %w", err)
	}
	c.JoinToken = strings.TrimSpace(string(data))
	return nil
}

// parseCores reads 3.5 as 3500 thousandths.
func parseCores(s string) (int64, error) {
	d, err := decimal.Parse(s)
	if err == nil {
		if whole, frac, ok := d.Int64(3); ok && whole > 0 || frac > 0 {
			return whole*1000 + frac, nil
		}
	}
	return 0, fault.Invalid.Errorf("want a number of cores, such as 3.5")
}

var sizes = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// maxGPUs bounds what one machine offers.
const maxGPUs = 1024

// parseBits reads 100Mbps as bits per second.
func parseBits(s string) (int64, error) {
	for _, x := range []struct {
		suffix string
		bits   int64
	}{{"Kbps", 1_000}, {"Mbps", 1_000_000}, {"Gbps", 1_000_000_000}} {
		digits, ok := strings.CutSuffix(s, x.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err == nil && n > 0 && n < (1<<53)/x.bits {
			return n * x.bits, nil
		}
	}
	return 0, fault.Invalid.Errorf("want a bandwidth such as 100Mbps or 10Gbps")
}

// parseBytes reads 4GiB. Sizes are cut down to whole MiB.
func parseBytes(s string) (int64, error) {
	for _, x := range sizes {
		digits, ok := strings.CutSuffix(s, x.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err == nil && n > 0 && n < (1<<62)/x.bytes && n*x.bytes >= unit.MiB { // less would be none, which means the default
			return n * x.bytes / unit.MiB * unit.MiB, nil
		}
	}
	return 0, fault.Invalid.Errorf("want a size such as 512MiB or 4GiB, 1MiB or more")
}
