package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// fleetArg makes this program a process of simulated agents.
const fleetArg = "__fleet"

// perConnection is how many agents share one: a session each, below what the
// server allows on a connection.
const perConnection = 200

// joiners is how many agents of a process join at the same time.
const joiners = 32

// fleetConfig is what a process of agents is told, as its only argument.
type fleetConfig struct {
	Server    string
	Others    []string // further servers of the cluster
	Authority string   // file with who signs for the server; empty: it speaks no TLS
	Token     string   // an admin's, to make join tokens
	First     int      // number of its first machine
	Count     int
	Shared    bool
	Capacity  unit.Resources
}

// fleetState is what a process of agents says, once a second and after each
// command.
type fleetState struct {
	Joined    int
	Connected int
	Running   int
	Ended     int64 // tasks that failed by themselves
	Begun     int64 // tasks that were started, in all
	Error     string
}

func fleetMain(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("fleet", flag.ContinueOnError)
	text := fs.String("config", "", "JSON")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f := &fleet{}
	if err := json.Unmarshal([]byte(*text), &f.cfg); err != nil {
		return err
	}
	f.cfg.Token = os.Getenv("COVEY_TOKEN")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel() // the parent is gone
		f.command(in)
	}()
	if err := f.join(ctx); err != nil {
		return json.NewEncoder(out).Encode(fleetState{Error: err.Error()})
	}
	return f.live(ctx, out)
}

// fleet is the agents of one process.
type fleet struct {
	cfg      fleetConfig
	machines []*simulated
	perSec   atomic.Uint64 // tasks that shall fail in a second, in thousandths
	ended    atomic.Int64
	begun    atomic.Int64
}

// command reads how many tasks shall end in a second.
func (f *fleet) command(in io.Reader) {
	for s := bufio.NewScanner(in); s.Scan(); {
		if v, err := strconv.ParseFloat(strings.TrimSpace(s.Text()), 64); err == nil && v >= 0 {
			f.perSec.Store(uint64(v * 1000))
		}
	}
}

// join lets every machine join with a token of its own.
func (f *fleet) join(ctx context.Context) error {
	roots, err := believe(f.cfg.Authority)
	if err != nil {
		return err
	}
	admin := api.NewClusterServiceClient(http.DefaultClient, f.cfg.Server)
	f.machines = make([]*simulated, f.cfg.Count)
	shared := make([]*rpc.Agent, f.cfg.Count/perConnection+1)
	for i := range shared {
		if shared[i], err = rpc.DialAgent(rpc.AgentConfig{URL: f.cfg.Server, Roots: roots}); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(joiners)
	for i := range f.machines {
		g.Go(func() error {
			id := machine.ID(fmt.Sprintf("m%05d", f.cfg.First+i))
			req := connect.NewRequest(&pb.CreateTokenRequest{Kind: "join", Subject: string(id), TtlSeconds: 900})
			req.Header().Set("Authorization", "Bearer "+f.cfg.Token)
			t, err := admin.CreateToken(ctx, req)
			if err != nil {
				return err
			}
			way := shared[i/perConnection]
			j, err := way.Join(ctx, t.Msg.GetToken(), id)
			if err != nil {
				return err
			}
			cfg := rpc.AgentConfig{URL: f.cfg.Server, Others: f.cfg.Others, Credential: j.Credential, Version: "simulated", Roots: roots, Cert: j.Cert}
			if f.cfg.Shared {
				cfg.Beside = way
			}
			a := &simulated{uid: j.UID, self: f.describe(id, f.cfg.First+i), source: string(id) + "/journal", mind: agent.New(j.UID, agent.Seen{}, agent.Seen{}), began: map[task.ID]unit.Tick{}, begun: &f.begun}
			a.client, err = rpc.DialAgent(cfg)
			f.machines[i] = a
			return err
		})
	}
	return g.Wait()
}

func (f *fleet) describe(id machine.ID, n int) machine.Machine {
	return machine.Machine{
		ID: id, Host: "127.0.0.1", Capacity: f.cfg.Capacity, Boot: "simulated",
		Attributes: []machine.Attribute{{Name: "host", Value: string(id)}, {Name: "rack", Value: fmt.Sprintf("r%04d", n/40)}},
		Ports:      machine.PortRange{From: 31000, To: 32000},
	}
}

// live runs the agents until ctx ends and says every second how they are.
func (f *fleet) live(ctx context.Context, out io.Writer) error {
	var agents sync.WaitGroup
	defer agents.Wait()
	for _, a := range f.machines {
		agents.Go(func() { a.run(ctx) })
		agents.Go(func() { a.look(ctx) })
	}
	say := json.NewEncoder(out)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	owed := uint64(0) // tasks that shall end, in thousandths
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, a := range f.machines {
				a.pulse(now)
			}
			owed = f.churn(owed + f.perSec.Load())
			if err := say.Encode(f.state()); err != nil {
				return err
			}
		}
	}
}

// churn ends tasks of machines drawn by lot and returns what is left of owed.
func (f *fleet) churn(owed uint64) uint64 {
	for tries := 2 * owed / 1000; owed >= 1000 && tries > 0; tries-- {
		if f.machines[rand.IntN(len(f.machines))].finish() {
			f.ended.Add(1)
			owed -= 1000
		}
	}
	return owed % 1000
}

func (f *fleet) state() fleetState {
	s := fleetState{Joined: len(f.machines), Ended: f.ended.Load(), Begun: f.begun.Load()}
	for _, a := range f.machines {
		a.mu.Lock()
		if a.session != nil {
			s.Connected++
		}
		s.Running += len(a.running)
		a.mu.Unlock()
	}
	return s
}
