package server

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/covey-platform/covey/internal/cli"
)

// A Program is what a part of the platform knows of the program it runs in.
type Program struct {
	Self    string // path of the binary, for child processes
	Version string
	Err     io.Writer // logs
}

func (p Program) log() *slog.Logger { return slog.New(slog.NewTextHandler(p.Err, nil)) }

// outlivePipes lets a write to a log that nobody reads any more, such as a pipe
// into a program that the same Ctrl-C has ended, fail without ending this
// program. Unlike an ignored signal, that is not handed down to children.
func outlivePipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// Server runs a server as its flags say.
func (p Program) Server(ctx context.Context, f cli.ServerFlags) error {
	outlivePipes()
	return Run(ctx, Config{
		DataDir: f.DataDir, Listen: f.Listen, TLS: f.TLS, TLSCert: f.TLSCert, TLSKey: f.TLSKey,
		Cluster: f.Cluster, PriceBook: f.PriceBook, ClusterStore: f.ClusterStore,
		CompanyStore: f.CompanyStore, Advertise: f.Advertise, Hosts: f.Hosts, Self: p.Self, Version: p.Version, Log: p.log().With("part", "server"),
	})
}

// Dev runs a whole platform as its flags say.
func (p Program) Dev(ctx context.Context, f cli.DevFlags) error {
	outlivePipes()
	asked, hurry := make(chan os.Signal, 1), make(chan struct{})
	defer signal.Stop(asked)
	defer context.AfterFunc(ctx, func() { // the second one: the first has ended ctx
		signal.Notify(asked, os.Interrupt, syscall.SIGTERM)
		<-asked
		close(hurry)
	})()
	return Dev(ctx, DevConfig{
		Hurry:   hurry,
		DataDir: f.DataDir, Listen: f.Listen, Agents: f.Agents, Cluster: f.Cluster, PriceBook: f.PriceBook, StateDir: f.StateDir,
		Self: p.Self, Version: p.Version, Err: p.Err, Log: p.log().With("part", "dev"), Ready: f.Ready,
	})
}
