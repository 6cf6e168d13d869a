package rpc

import (
	"context"
	"maps"
	"slices"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
)

// quotaToWire shows a role with the quota that holds for it.
func quotaToWire(s *state.Snapshot, role string) *pb.Quota {
	use := s.Consumed(role)
	p := &pb.Quota{
		Role: text(role), ProdShared: resourcesToWire(use[tenant.ProdShared]), ProdDedicated: resourcesToWire(use[tenant.ProdDedicated]),
		NonProdShared: resourcesToWire(use[tenant.NonProdShared]), NonProdDedicated: resourcesToWire(use[tenant.NonProdDedicated]),
	}
	q, bounded := s.QuotaFor(role)
	if !bounded {
		return p
	}
	p.Quota, p.Inherited = resourcesToWire(q.Resources), q.Role != role
	if !p.GetInherited() {
		p.By, p.UpdatedUnixNanos = text(q.By), nanos(q.Updated)
	}
	return p
}

// GetQuota shows the quota that holds for a role, and what the role reserves.
func (s *services) GetQuota(_ context.Context, req *connect.Request[pb.GetQuotaRequest]) (*connect.Response[pb.GetQuotaResponse], error) {
	role := req.Msg.GetRole()
	if err := tenant.ValidOwner(role); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetQuotaResponse{Quota: quotaToWire(s.b.View().Snapshot, role)}), nil
}

// ListQuotas shows a page of the roles that have a quota or reserve something.
func (s *services) ListQuotas(_ context.Context, req *connect.Request[pb.ListQuotasRequest]) (*connect.Response[pb.ListQuotasResponse], error) {
	snap := s.b.View().Snapshot
	limit, err := pageLimit(req.Msg.GetLimit())
	if err != nil {
		return nil, err
	}
	from := req.Msg.GetPage()
	if from != "" {
		if err := tenant.ValidOwner(from); err != nil {
			return nil, fault.Invalid.Errorf("page: %w", err)
		}
	}
	roles := rolesFrom(snap, from, limit+1)
	resp := &pb.ListQuotasResponse{}
	for _, role := range roles[:min(len(roles), limit)] {
		resp.Quotas = append(resp.Quotas, quotaToWire(snap, role))
	}
	if len(roles) > limit {
		resp.NextPage = roles[limit]
	}
	return connect.NewResponse(resp), nil
}

// rolesFrom merges the first roles that have a quota with the first ones that
// reserve something. "*" sorts before the names that roles may have, which may
// begin with '-'.
func rolesFrom(s *state.Snapshot, from string, most int) []string {
	seen := map[string]bool{}
	n := 0
	for q := range s.Quotas(from) {
		if n++; n > most {
			break
		}
		seen[q.Role] = true
	}
	n = 0
	for role := range s.Consumers(from) {
		if n++; n > most {
			break
		}
		seen[role] = true
	}
	all := slices.Sorted(maps.Keys(seen))
	return all[:min(len(all), most)]
}

// SetQuota gives a role a quota.
func (s *services) SetQuota(ctx context.Context, req *connect.Request[pb.SetQuotaRequest]) (*connect.Response[pb.SetQuotaResponse], error) {
	c := control.SetQuota{Role: req.Msg.GetRole(), Quota: tenant.Quota{Resources: resourcesFromWire(req.Msg.GetQuota())}, By: callerOf(ctx).String()}
	if req.Msg.GetQuota() == nil {
		return nil, fault.Invalid.Errorf("quota is absent; want how much the role may reserve, or RemoveQuota to bound it no more")
	}
	ans, _, err := s.b.Do(ctx, c)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.SetQuotaResponse{Text: ans.Text}), nil
}

// RemoveQuota takes a role's own quota away.
func (s *services) RemoveQuota(ctx context.Context, req *connect.Request[pb.RemoveQuotaRequest]) (*connect.Response[pb.RemoveQuotaResponse], error) {
	if err := tenant.ValidOwner(req.Msg.GetRole()); err != nil {
		return nil, err
	}
	ans, _, err := s.b.Do(ctx, control.RemoveQuota{Role: req.Msg.GetRole(), By: callerOf(ctx).String()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemoveQuotaResponse{Text: ans.Text}), nil
}
