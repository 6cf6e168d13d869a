package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/trust"
)

// rowToWire shows a machine as the cluster knows it.
func rowToWire(s *state.Snapshot, m state.Machine) *pb.Machine {
	p := machineToWire(m.Machine)
	p.Free, p.SinceUnixNanos = resourcesToWire(s.Free(m.ID)), nanos(m.Since)
	for range s.TasksOn(m.ID) {
		p.Tasks++
	}
	return p
}

// ListMachines shows a page of machines.
func (s *services) ListMachines(_ context.Context, req *connect.Request[pb.ListMachinesRequest]) (*connect.Response[pb.ListMachinesResponse], error) {
	snap := s.b.View().Snapshot
	limit, err := pageLimit(req.Msg.GetLimit())
	if err != nil {
		return nil, err
	}
	from := machine.ID(req.Msg.GetPage())
	if from != "" {
		if err := named("page", string(from)); err != nil {
			return nil, err
		}
	}
	resp := &pb.ListMachinesResponse{}
	for m := range snap.MachinesFrom(from) {
		if len(resp.Machines) == limit {
			resp.NextPage = string(m.ID)
			break
		}
		resp.Machines = append(resp.Machines, rowToWire(snap, m))
	}
	return connect.NewResponse(resp), nil
}

// GetMachine shows a machine and what is on it.
func (s *services) GetMachine(_ context.Context, req *connect.Request[pb.GetMachineRequest]) (*connect.Response[pb.GetMachineResponse], error) {
	v := s.b.View()
	if err := named("machine", req.Msg.GetId()); err != nil {
		return nil, err
	}
	m, ok := v.Snapshot.Machine(machine.ID(req.Msg.GetId()))
	if !ok {
		return nil, fault.NotFound.Errorf("there is no machine %s; covey machine list shows those there are", req.Msg.GetId())
	}
	resp := &pb.GetMachineResponse{Machine: rowToWire(v.Snapshot, m)}
	for _, x := range m.Strays[:min(len(m.Strays), maxEntries)] {
		resp.Strays = append(resp.Strays, strayToWire(x))
	}
	for t := range v.Snapshot.TasksOn(m.ID) {
		if len(resp.Tasks) == maxEntries {
			break
		}
		resp.Tasks = append(resp.Tasks, taskToWire(v, t.Task))
	}
	return connect.NewResponse(resp), nil
}

func strayToWire(x state.Stray) *pb.Stray {
	p := &pb.Stray{TaskId: x.ID.String(), Resources: resourcesToWire(x.Resources), SinceUnixNanos: nanos(x.Since)}
	for _, port := range x.Ports {
		p.Ports = append(p.Ports, uint32(port))
	}
	return p
}

// GetCluster describes the cluster.
func (s *services) GetCluster(ctx context.Context, _ *connect.Request[pb.GetClusterRequest]) (*connect.Response[pb.GetClusterResponse], error) {
	v := s.b.View()
	c := v.Snapshot.Cluster
	jobs, tasks, machines := v.Snapshot.Len()
	resp := &pb.GetClusterResponse{
		Name: text(c.Name), Uid: text(c.UID), Version: text(s.opt.Version), Epoch: epochToWire(v.Epoch), Recovery: c.Recovery,
		Jobs: count(jobs), Tasks: count(tasks), Machines: count(machines), Subject: text(callerOf(ctx).String()),
		Paused: text(v.Paused), Wire: Wire, Servers: serversToWire(v.Servers),
	}
	if v.Following != nil {
		resp.AgeMillis = max(1, s.opt.Now().Sub(v.Following.Since).Milliseconds())
	}
	for m := range v.Snapshot.Machines() {
		if m.Up {
			resp.MachinesUp++
		}
	}
	for _, h := range v.Held[:min(len(v.Held), maxPage)] {
		resp.Held = append(resp.Held, &pb.HeldTask{Id: h.Sighting.ID.String(), Machine: string(h.Machine), Reason: text(h.Why)})
	}
	return connect.NewResponse(resp), nil
}

// Tokens.
const (
	joinLife  = 15 * time.Minute
	adminLife = 30 * 24 * time.Hour
	maxLife   = 366 * 24 * time.Hour
	tokenID   = 12 // digits of a token's hash that name it
)

// CreateToken makes a token. Its secret is in the answer and nowhere else.
func (s *services) CreateToken(ctx context.Context, req *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	m := req.Msg
	kind, _ := tenant.ParseKind(m.GetKind())
	life := joinLife
	switch kind {
	case tenant.Join:
	case tenant.Admin:
		life = adminLife
		if m.GetSubject() == "" {
			return nil, fault.Invalid.Errorf("subject is empty; want the user whom the token lets in")
		}
	case tenant.Nobody, tenant.Agent:
		return nil, fault.Invalid.Errorf("kind is %.40q; want join or admin", m.GetKind())
	}
	if m.GetSubject() != "" {
		if err := named("subject", m.GetSubject()); err != nil {
			return nil, err
		}
	}
	if n := m.GetTtlSeconds(); n < 0 || n > int64(maxLife/time.Second) {
		return nil, fault.Invalid.Errorf("ttl_seconds is %d; want 1 to %d, or 0 for %v", n, int64(maxLife/time.Second), life)
	} else if n > 0 {
		life = time.Duration(n) * time.Second
	}
	expires := s.now().Add(life)
	secret := NewToken(kind)
	if kind == tenant.Join && s.opt.TLS != nil {
		secret = trust.WithPin(secret, s.opt.TLS.Pin())
	}
	c := state.Credential{Hash: HashToken(secret), Kind: kind.String(), Subject: m.GetSubject(), Expires: expires}
	if _, _, err := s.b.Do(ctx, control.AddCredential{Credential: c}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CreateTokenResponse{Token: secret, ExpiresUnixNanos: nanos(expires)}), nil
}

// ListTokens shows tokens without their secrets.
func (s *services) ListTokens(context.Context, *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
	resp := &pb.ListTokensResponse{}
	for c := range s.b.View().Snapshot.Credentials() {
		if len(resp.Tokens) == maxPage {
			break
		}
		resp.Tokens = append(resp.Tokens, &pb.Token{
			Id: c.Hash[:min(len(c.Hash), tokenID)], Kind: text(c.Kind), Subject: text(c.Subject),
			ExpiresUnixNanos: nanos(c.Expires), Used: c.Used,
		})
	}
	return connect.NewResponse(resp), nil
}

// RevokeToken makes a token void at once.
func (s *services) RevokeToken(ctx context.Context, req *connect.Request[pb.RevokeTokenRequest]) (*connect.Response[pb.RevokeTokenResponse], error) {
	id := req.Msg.GetId()
	if len(id) < tokenID || len(id) > 64 {
		return nil, fault.Invalid.Errorf("token %.80q; want the %d digits that covey token list shows", id, tokenID)
	}
	var found []string
	for c := range s.b.View().Snapshot.Credentials() {
		if len(c.Hash) >= len(id) && c.Hash[:len(id)] == id {
			found = append(found, c.Hash)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fault.NotFound.Errorf("there is no token %s; covey token list shows those there are", text(id))
	case len(found) > 1:
		return nil, fault.Conflict.Errorf("%d tokens begin with %s; give more digits", len(found), id)
	}
	_, _, err := s.b.Do(ctx, control.RevokeCredential{Hash: found[0]})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RevokeTokenResponse{}), nil
}

// EndRecovery ends a recovery.
func (s *services) EndRecovery(ctx context.Context, _ *connect.Request[pb.EndRecoveryRequest]) (*connect.Response[pb.EndRecoveryResponse], error) {
	ans, _, err := s.b.Do(ctx, control.EndRecovery{By: callerOf(ctx).String()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.EndRecoveryResponse{Tasks: count(ans.Tasks)}), nil
}

// Resume ends the pause of rescheduling, and has waiting surplus tasks stopped.
func (s *services) Resume(ctx context.Context, _ *connect.Request[pb.ResumeRequest]) (*connect.Response[pb.ResumeResponse], error) {
	ans, _, err := s.b.Do(ctx, control.Resume{By: callerOf(ctx).String()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ResumeResponse{Text: ans.Text, Stopped: count(ans.Tasks)}), nil
}
