package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/covey-platform/covey/api/covey/v1"
)

// A bill's table sums every column, and the lines that it shows make the total
// that it shows, also where each was rounded.
func TestBillTable(t *testing.T) {
	row := func(owner, cpu, ram, disk, gpu, amount string) *pb.BillRow {
		return &pb.BillRow{Owner: owner, Reserved: &pb.Amounts{CpuCoreHours: cpu, RamGibHours: ram, DiskGibHours: disk, GpuHours: gpu}, Amount: amount}
	}
	hours := []*pb.BillHour{{Hour: "2031-05-01T00:00:00Z", Capacity: "10", Billed: "7.5000003", Overhead: "0.5", Idle: "1.9999997", Down: "0"}}
	for _, c := range []struct {
		name string
		rows []*pb.BillRow
		want string
	}{
		{"nobody", nil, `
OWNER  CORE-HOURS  RAM GIB-HOURS  DISK GIB-HOURS  AMOUNT
total  0.000       0.000          0.000           0.000000`},
		{"rounded", []*pb.BillRow{
			row("ads", "1.0004", "0.0009765625", "100", "0", "2.5000001"), row("maps", "2.0004", "1", "0.25", "0", "2.5000001"), row("search", "3.0004", "2", "0", "0", "2.5000001"),
		}, `
OWNER   CORE-HOURS  RAM GIB-HOURS  DISK GIB-HOURS  AMOUNT
ads     1.001       0.001          100.000         2.500000
maps    2.000       1.000          0.250           2.500000
search  3.000       2.000          0.000           2.500000
total   6.001       3.001          100.250         7.500000`},
		{"with GPUs", []*pb.BillRow{row("ads", "1", "2", "3", "0.5", "5"), row("maps", "1", "2", "3", "0", "2.5000003")}, `
OWNER  CORE-HOURS  RAM GIB-HOURS  DISK GIB-HOURS  GPU-HOURS  AMOUNT
ads    1.000       2.000          3.000           0.500      5.000000
maps   1.000       2.000          3.000           0.000      2.500000
total  2.000       4.000          6.000           0.500      7.500000`},
		{"of a later server, that says something else", []*pb.BillRow{row("ads", "many", "2", "3", "0", "5")}, `
OWNER  CORE-HOURS  RAM GIB-HOURS  DISK GIB-HOURS  AMOUNT
ads    many        2.000          3.000           5.000000
total  -           2.000          3.000           5.000000`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			billTable(&b, &pb.GetBillResponse{Rows: c.rows, Hours: hours, Currency: "USD", From: "2031-05-01T00:00:00Z", To: "2031-05-01T01:00:00Z", Total: "7.5000003"})
			want := "2031-05-01T00:00:00Z to 2031-05-01T01:00:00Z, in USD" + c.want + `

the machines cost 10.000000 = billed 7.500000 + overhead 0.500000 + idle 2.000000 + down 0.000000, exactly, in each of 1 hour
`
			if d := cmp.Diff(want, b.String()); d != "" {
				t.Errorf("the table (-want +got):\n%s", d)
			}
		})
	}
}
