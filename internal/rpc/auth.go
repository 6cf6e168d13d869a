package rpc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/trust"
	"github.com/covey-platform/covey/internal/unit"
)

// NewToken draws a secret that lets somebody in. kind is part of it for people
// who find one lying about; only [HashToken] of it is ever stored.
func NewToken(kind tenant.Kind) string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return "covey_" + kind.String() + "_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// HashToken returns the name under which a token is stored: its SHA-256, hex.
func HashToken(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// maxToken bounds what is hashed for a stranger, in bytes.
const maxToken = 512

// caller is who asks, as the gate found out.
type caller struct {
	tenant.Subject
	hash string            // of the token, or of the credential that the certificate stands for
	cert *x509.Certificate // what proved it; nil: the token
	seen *admission        // nil: it is looked up each time
}

// admission remembers of a caller who stays when it was looked up last.
type admission struct {
	at      atomic.Uint64 // the cluster's admission then
	expires atomic.Int64  // unit.Tick; 0: never
}

type callerKey struct{}

// callerOf returns who asks. Without a gate it is nobody.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// authenticate finds out who calls: whom the connection's certificate names,
// else whose token is in the headers. No proof is nobody; one that is not valid
// is an error of kind Unauthenticated. Secrets are looked up by their hash, so
// that the time it takes tells nothing of them.
func (s *services) authenticate(conn *tls.ConnectionState, h http.Header) (caller, error) {
	snap, all := s.b.View().Snapshot, h.Values("Authorization")
	switch {
	case conn != nil && len(conn.PeerCertificates) > 0:
		if len(all) > 0 {
			return caller{}, fault.Unauthenticated.Errorf("the call has a certificate and a token; want one proof of who calls")
		}
		return s.byCertificate(snap, conn)
	case len(all) == 0:
		return caller{}, nil
	}
	return byToken(snap, s.now(), all)
}

// byCertificate maps a machine's certificate to the machine's credential: when
// that one is revoked, so is the certificate.
func (s *services) byCertificate(snap *state.Snapshot, conn *tls.ConnectionState) (caller, error) {
	if len(conn.VerifiedChains) == 0 {
		return caller{}, fault.Unauthenticated.Errorf("the certificate was not verified")
	}
	cert := conn.PeerCertificates[0]
	m, err := trust.MachineOf(cert)
	if err != nil {
		return caller{}, err
	}
	if m.Cluster != snap.Cluster.UID {
		return caller{}, fault.Unauthenticated.Errorf("the certificate is of a machine of another cluster, %s; this is %s", m.Cluster, snap.Cluster.UID)
	}
	who := caller{Subject: tenant.Subject{Kind: tenant.Agent, Machine: m.ID}, hash: m.Credential, cert: cert}
	c, ok := snap.Credential(m.Credential)
	if !ok || c.Kind != tenant.Agent.String() || c.Subject != m.ID {
		return caller{}, errRevoked
	}
	return who, s.still(who)
}

var errRevoked = fault.Unauthenticated.Errorf("what let this caller in was revoked, as when another agent has joined as this machine, or is not known to this cluster; a machine joins again with a token of covey token create --kind join")

// still reports why somebody who was let in may not stay: a stream must not
// outlive what opened it.
func (s *services) still(who caller) error {
	if who.hash == "" {
		return nil
	}
	snap := s.b.View().Snapshot
	var expires unit.Tick
	if at := uint64(snap.Admission()); who.seen != nil && at != 0 && who.seen.at.Load() == at {
		expires = unit.Tick(who.seen.expires.Load())
	} else {
		c, ok := snap.Credential(who.hash)
		if !ok {
			return errRevoked
		}
		expires = c.Expires
		if who.seen != nil {
			who.seen.expires.Store(int64(expires))
			who.seen.at.Store(at)
		}
	}
	switch {
	case expires != 0 && expires <= s.now():
		return fault.Unauthenticated.Errorf("the token has expired; make another with covey token create")
	case who.cert != nil:
		return trust.Expired(who.cert, s.opt.Now())
	}
	return nil
}

// byToken finds out whose token is in the Authorization headers.
func byToken(s *state.Snapshot, now unit.Tick, all []string) (caller, error) {
	scheme, token, _ := strings.Cut(all[0], " ")
	if len(all) > 1 || !strings.EqualFold(scheme, "bearer") || token == "" || len(token) > maxToken {
		return caller{}, fault.Unauthenticated.Errorf("the Authorization header is not understood; want one \"Bearer TOKEN\"")
	}
	c, ok := s.Credential(HashToken(token))
	kind, known := tenant.ParseKind(c.Kind)
	switch {
	case !ok && strings.HasPrefix(token, "covey_agent_"): // one of NewToken's
		return caller{}, errRevoked
	case !ok || !known:
		return caller{}, fault.Unauthenticated.Errorf("the token is not known to cluster %s; make one with covey token create, or see that --server is the cluster you mean", s.Cluster.Name)
	case c.Expires != 0 && c.Expires <= now:
		return caller{}, fault.Unauthenticated.Errorf("the token has expired; make another with covey token create")
	case c.Used:
		return caller{}, fault.Unauthenticated.Errorf("the join token was used before; a token lets one agent in, make another with covey token create --kind join")
	}
	who := caller{Subject: tenant.Subject{Kind: kind, Name: c.Subject}, hash: c.Hash}
	if kind != tenant.Admin {
		who.Name, who.Machine = "", c.Subject
	}
	return who, nil
}

// Recognises reports whether the token of a call is known in v.
func Recognises(v View, now time.Time, r *http.Request) bool {
	all := r.Header.Values("Authorization")
	if len(all) == 0 {
		return false
	}
	_, err := byToken(v.Snapshot, unit.TickAt(now), all)
	return err == nil
}

// A rule says what a procedure needs.
type rule struct {
	verb   tenant.Verb
	object func(caller, proto.Message) tenant.Object // of one message
}

// rules holds every procedure; what is absent is denied to everybody.
var rules = map[string]rule{
	api.JobServiceCreateJobProcedure:        {tenant.JobCreate, jobObject},
	api.JobServiceGetJobProcedure:           {tenant.JobRead, jobObject},
	api.JobServiceListJobsProcedure:         {tenant.JobRead, wholeCluster},
	api.JobServiceKillJobProcedure:          {tenant.JobKill, jobObject},
	api.JobServiceRestartJobProcedure:       {tenant.JobRestart, jobObject},
	api.JobServiceExplainJobProcedure:       {tenant.JobRead, jobObject},
	api.JobServiceFitJobProcedure:           {tenant.JobRead, jobObject},
	api.JobServiceWatchJobProcedure:         {tenant.JobRead, jobObject},
	api.TaskServiceListTaskEventsProcedure:  {tenant.TaskRead, jobObject},
	api.TaskServiceExplainTaskProcedure:     {tenant.TaskRead, jobObject},
	api.TaskServiceReadLogProcedure:         {tenant.TaskLook, jobObject},
	api.TaskServiceListFilesProcedure:       {tenant.TaskLook, jobObject},
	api.TaskServiceReadFileProcedure:        {tenant.TaskLook, jobObject},
	api.MachineServiceListMachinesProcedure: {tenant.MachineRead, wholeCluster},
	api.MachineServiceGetMachineProcedure:   {tenant.MachineRead, machineObject},
	api.UsageServiceGetBillProcedure:        {tenant.BillRead, wholeCluster},
	api.UsageServiceGetUsageProcedure:       {tenant.BillRead, wholeCluster},
	api.QuotaServiceGetQuotaProcedure:       {tenant.QuotaRead, roleObject},
	api.QuotaServiceListQuotasProcedure:     {tenant.QuotaRead, wholeCluster},
	api.QuotaServiceSetQuotaProcedure:       {tenant.QuotaWrite, roleObject},
	api.QuotaServiceRemoveQuotaProcedure:    {tenant.QuotaWrite, roleObject},
	api.ClusterServiceGetClusterProcedure:   {tenant.ClusterRead, wholeCluster},
	api.ClusterServiceCreateTokenProcedure:  {tenant.TokenWrite, wholeCluster},
	api.ClusterServiceListTokensProcedure:   {tenant.TokenRead, wholeCluster},
	api.ClusterServiceRevokeTokenProcedure:  {tenant.TokenWrite, wholeCluster},
	api.ClusterServiceEndRecoveryProcedure:  {tenant.ClusterWrite, wholeCluster},
	api.ClusterServiceResumeProcedure:       {tenant.ClusterWrite, wholeCluster},
	api.ClusterServiceExportStateProcedure:  {tenant.StateExport, wholeCluster},
	api.AgentServiceJoinProcedure:           {tenant.AgentJoin, joinObject},
	api.AgentServiceSessionProcedure:        {tenant.AgentSession, sessionObject},
	api.AgentServiceLookProcedure:           {tenant.AgentLook, lookObject},
	api.AgentServiceRenewProcedure:          {tenant.AgentRenew, renewObject},
}

func wholeCluster(caller, proto.Message) tenant.Object { return tenant.Object{} }

func jobObject(_ caller, m proto.Message) tenant.Object {
	k, ok := m.(interface{ GetKey() string })
	if !ok {
		return tenant.Object{}
	}
	_, key, err := job.ParseKey(k.GetKey())
	if err != nil {
		return tenant.Object{} // the handler says what is wrong with it
	}
	return tenant.Object{Role: key.Role(), Env: key.Env(), Job: key.Name()}
}

func roleObject(_ caller, m proto.Message) tenant.Object {
	r, _ := m.(interface{ GetRole() string })
	if r == nil {
		return tenant.Object{}
	}
	return tenant.Object{Role: r.GetRole()}
}

func machineObject(_ caller, m proto.Message) tenant.Object {
	r, _ := m.(*pb.GetMachineRequest)
	return tenant.Object{Machine: r.GetId()}
}

func joinObject(_ caller, m proto.Message) tenant.Object {
	r, _ := m.(*pb.JoinRequest)
	return tenant.Object{Machine: r.GetMachine()}
}

func renewObject(_ caller, m proto.Message) tenant.Object {
	r, _ := m.(*pb.RenewRequest)
	return tenant.Object{Machine: r.GetMachine()}
}

// sessionObject is the machine for which the agent speaks. Messages without a
// Hello belong to the one that opened the session.
func sessionObject(who caller, m proto.Message) tenant.Object {
	r, _ := m.(*pb.SessionRequest)
	switch {
	case r.GetHello() != nil:
		return tenant.Object{Machine: r.GetHello().GetMachine().GetId()}
	case r.GetMachine() != nil:
		return tenant.Object{Machine: r.GetMachine().GetId()}
	}
	return tenant.Object{Machine: who.Machine}
}

func lookObject(who caller, m proto.Message) tenant.Object {
	r, _ := m.(*pb.LookRequest)
	if r.GetMachine() == "" {
		return tenant.Object{Machine: who.Machine}
	}
	return tenant.Object{Machine: r.GetMachine()}
}

// allow asks the one question for one message of a procedure.
func allow(who caller, procedure string, m proto.Message) error {
	r, ok := rules[procedure]
	if !ok {
		return fault.Denied.Errorf("%s has no rule that says who may call it", procedure)
	}
	return tenant.Allow(who.Subject, r.verb, r.object(who, m))
}

// gate finds out who calls before anything of a message is read.
func (s *services) gate(ctx context.Context, spec connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
	conn := connOf(ctx)
	who, err := s.authenticate(conn, h)
	if err != nil {
		return ctx, toWire(err)
	}
	if conn != nil && who.Kind == tenant.Agent && who.cert == nil && spec.Procedure != api.AgentServiceRenewProcedure {
		return ctx, toWire(fault.Unauthenticated.Errorf("over TLS a machine proves itself by its certificate; its credential is for Renew alone"))
	}
	// An agent's streams name their machine in the first message; until then
	// the caller counts as speaking for itself.
	r, ok := rules[spec.Procedure]
	if !ok || who.Kind == tenant.Nobody || spec.StreamType == connect.StreamTypeBidi {
		if err := tenant.Allow(who.Subject, r.verb, tenant.Object{Machine: who.Machine}); err != nil {
			return ctx, toWire(err)
		}
	}
	return context.WithValue(ctx, callerKey{}, who), nil
}

// guard is the interceptor that asks [allow] for every message, and gives
// errors their codes.
type guard struct{ s *services }

// WrapUnary guards a call of one message.
func (guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		deadlinesOf(ctx).read(time.Time{}) // all of it is there
		m, _ := req.Any().(proto.Message)
		if err := allow(callerOf(ctx), req.Spec().Procedure, m); err != nil {
			return nil, toWire(err)
		}
		resp, err := next(ctx, req)
		if err != nil {
			return nil, toWire(err)
		}
		return resp, nil
	}
}

// WrapStreamingClient is for clients, which are not guarded.
func (guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler guards every message of a stream.
func (g guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return toWire(next(ctx, guarded{conn, g.s, callerOf(ctx), deadlinesOf(ctx)}))
	}
}

// guarded is a stream whose messages are asked about.
type guarded struct {
	connect.StreamingHandlerConn
	s         *services
	who       caller
	deadlines deadlines
}

// Receive reads a message and asks whether it is allowed.
func (g guarded) Receive(m any) error {
	if err := g.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	if g.Spec().StreamType == connect.StreamTypeServer {
		g.deadlines.read(time.Time{}) // all of the request is there
	}
	if err := g.s.still(g.who); err != nil {
		return toWire(err)
	}
	msg, _ := m.(proto.Message)
	return toWire(allow(g.who, g.Spec().Procedure, msg))
}

// Send sends a message to who may still have it.
func (g guarded) Send(m any) error {
	if err := g.s.still(g.who); err != nil {
		return toWire(err)
	}
	return g.StreamingHandlerConn.Send(m)
}
