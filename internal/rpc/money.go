package rpc

import (
	"cmp"
	"context"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/unit"
)

// GetBill says what a span of time cost. Every amount is exact.
func (s *services) GetBill(ctx context.Context, req *connect.Request[pb.GetBillRequest]) (*connect.Response[pb.GetBillResponse], error) {
	by, from, to, err := s.span(req.Msg)
	if err != nil {
		return nil, err
	}
	st, err := s.b.Bill(ctx, by, from, to)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetBillResponse{
		Currency: text(st.Currency), Total: st.Billed.String(), From: ledger.Stamp(st.From), To: ledger.Stamp(st.To),
	}
	for _, h := range st.Hours {
		resp.Hours = append(resp.Hours, &pb.BillHour{
			Hour: ledger.Stamp(h.From), Capacity: h.Capacity.String(), Billed: h.Billed.String(), Overhead: h.Overhead.String(),
			Idle: h.Idle.String(), Down: h.Down.String(),
		})
	}
	for _, r := range st.Rows {
		resp.Rows = append(resp.Rows, &pb.BillRow{
			Owner: ownerOf(r), Reserved: amountsToWire(r.Reserved), Used: amountsToWire(r.Used), Amount: r.Amount.String(),
		})
	}
	return connect.NewResponse(resp), nil
}

// GetUsage says what was reserved and used in a span of time.
func (s *services) GetUsage(ctx context.Context, req *connect.Request[pb.GetUsageRequest]) (*connect.Response[pb.GetUsageResponse], error) {
	by, from, to, err := s.span(req.Msg)
	if err != nil {
		return nil, err
	}
	rows, platform, err := s.b.Usage(ctx, by, from, to)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetUsageResponse{From: ledger.Stamp(from), To: ledger.Stamp(to), Platform: amountsToWire(platform)}
	for _, r := range rows {
		resp.Rows = append(resp.Rows, &pb.UsageRow{
			Owner: ownerOf(r), Reserved: amountsToWire(r.Reserved), Used: amountsToWire(r.Used),
		})
	}
	return connect.NewResponse(resp), nil
}

// span reads the bounds of a question about money: whole hours, from the start
// of this month to the end of the present hour unless they are given.
func (s *services) span(m interface {
	GetBy() string
	GetFrom() string
	GetTo() string
},
) (by ledger.By, from, to unit.Tick, err error) {
	if by, err = ledger.ParseBy(cmp.Or(m.GetBy(), ledger.ByJob.String())); err != nil {
		return by, 0, 0, err
	}
	now := s.now().Time()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	if from, err = moment("from", m.GetFrom(), unit.TickAt(month)); err != nil {
		return by, 0, 0, err
	}
	if to, err = moment("to", m.GetTo(), s.now().FloorHour()+unit.Hour); err != nil {
		return by, 0, 0, err
	}
	return by, from, to, rate.Span(from, to)
}

// moment reads a time, or a day, as RFC 3339 writes it.
func moment(what, s string, otherwise unit.Tick) (unit.Tick, error) {
	if s == "" {
		return otherwise, nil
	}
	for _, form := range [...]string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil && t.Year() >= 1970 && t.Year() < 2200 {
			return unit.TickAt(t), nil
		}
	}
	return 0, fault.Invalid.Errorf("%s is %.40q; want a time such as 2031-05-06T07:00:00Z or 2031-05-06", what, s)
}

// ownerOf is whose a row is: role/env/name, or the role.
func ownerOf(r ledger.Row) string { return cmp.Or(string(r.Job), r.Role) }

func amountsToWire(a ledger.Amounts) *pb.Amounts {
	return &pb.Amounts{
		CpuCoreHours: unit.CPU.Hours(a[unit.CPU]), RamGibHours: unit.RAM.Hours(a[unit.RAM]),
		DiskGibHours: unit.Disk.Hours(a[unit.Disk]), GpuHours: unit.GPU.Hours(a[unit.GPU]),
	}
}
