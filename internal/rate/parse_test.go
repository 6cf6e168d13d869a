package rate

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

const prices = `"cpu_core_hour": "1", "ram_gib_hour": "2", "disk_gib_hour": "3", "gpu_hour": "4"`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`{"prices": [
		{"to": "1970-01-01T01:00:00Z", ` + prices + `},
		{"from": "1970-01-01T03:00:00+01:00", "to": "2026-01-01T00:00:00Z", "gpu_hour": 0, "disk_gib_hour": 0.00005, "ram_gib_hour": 0.25, "cpu_core_hour": 1e0},
		{` + prices + `, "from": "2026-01-01T00:00:00Z"}
	], "currency": "EUR"}`))
	if err == nil {
		t.Errorf("an exponent: got %v; want an error", got)
	}
	got, err = Parse([]byte(`{"prices": [
		{"to": "1970-01-01T01:00:00Z", ` + prices + `},
		{"from": "1970-01-01T03:00:00+01:00", "to": "2026-01-01T00:00:00Z", "gpu_hour": 0, "disk_gib_hour": 0.00005, "ram_gib_hour": 0.25, "cpu_core_hour": 10},
		{` + prices + `, "from": "2026-01-01T00:00:00Z"}
	], "currency": "EUR"}`))
	turn := 490_896 * unit.Hour
	want := Book{"EUR", []Price{
		{Always, unit.Hour, 1e9, 2e9, 3e9, 4e9},
		{2 * unit.Hour, turn, 1e10, 25e7, 5e4, 0},
		{turn, Forever, 1e9, 2e9, 3e9, 4e9},
	}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for at, want := range map[unit.Tick]int64{Always: 1e9, 0: 1e9, unit.Hour - 1: 1e9, unit.Hour: -1, 2*unit.Hour - 1: -1, 2 * unit.Hour: 1e10, turn - 1: 1e10, turn: 1e9, Forever - 1: 1e9} {
		p, err := got.At(at)
		if err != nil {
			p.CPU = -1
		}
		if p.CPU != want {
			t.Errorf("price at %d: got %d; want %d", at, p.CPU, want)
		}
	}
	for _, b := range []Book{Default(), got} {
		again, err := Parse([]byte(b.Format()))
		if diff := cmp.Diff(b, again); diff != "" || err != nil {
			t.Errorf("%v (-printed +parsed):\n%s\n%s", err, diff, b.Format())
		}
	}
}

// TestDocumented: the book in the design page is one, and the page names the
// default's prices.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/design/money.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	text, _, ok := strings.Cut(rest, "```")
	b, err := Parse([]byte(text))
	if err != nil || !ok || len(b.Prices) != 2 || b.Prices[0].To != b.Prices[1].From {
		t.Errorf("the book in the page: got %v, %v", b, err)
	}
	for _, f := range priceFields {
		if price := unit.FormatPrice(*f.of(&Default().Prices[0])); !strings.Contains(rest, price+" for a") {
			t.Errorf("the page does not say that %s is %s", f.name, price)
		}
	}
}

// TestParseRefuses: each fault is named with its place.
func TestParseRefuses(t *testing.T) {
	entry := func(more string) string {
		return "{\"currency\": \"USD\",\n \"prices\": [\n  {" + more + "}]}"
	}
	for _, tt := range []struct{ text, want string }{
		{``, "line 1, column 1: the price book ends"},
		{`[]`, `line 1, column 1: the price book is "["; want an object`},
		{`null`, "the price book is null; want an object"},
		{`{}`, "line 1, column 1: the price book has no currency"},
		{`{"currency": "USD"}`, "the price book has no prices"},
		{`{"currency": "dollars", "prices": []}`, `line 1, column 14: currency is "dollars"`},
		{`{"currency": 5}`, `currency is "5"; want a string`},
		{`{"currency": "USD", "prices": []}`, "prices is empty"},
		{`{"currency": "USD", "prices": {}}`, `line 1, column 31: prices is "{"; want a list`},
		{`{"currency": "USD", "prices": [5]}`, `the price is "5"; want an object`},
		{`{"currency": "USD", "prices": [[[[[[`, `the price is "["`},
		{`{"currency": "USD", "Prices": []}`, `line 1, column 21: the price book has no field "Prices"; want one of currency, prices`},
		{`{"currency": "USD", "currency": "EUR"}`, "line 1, column 21: field currency is given twice"},
		{`{"currency": "USD", }`, "line 1, column"},
		{`{"currency": "USD", "prices": [`, "the price book ends in the middle"},
		{entry(prices) + "\n{}", "line 4, column 1: something follows"},
		{entry(prices) + "x", "line 3, column"},
		{entry(`"cpu_core_hour": "1"`), "line 3, column 3: the price has no ram_gib_hour"},
		{entry(prices + `, "net_gbit": 1`), `the price has no field "net_gbit"`},
		{entry(prices + `, "gpu_hour": 1`), "field gpu_hour is given twice"},
		{entry(`"cpu_core_hour": "0.0000000001"`), "line 3, column 21: cpu_core_hour: price"},
		{entry(`"cpu_core_hour": -1`), "negative"},
		{entry(`"cpu_core_hour": 1e-3`), "want a plain decimal number"},
		{entry(`"cpu_core_hour": true`), `cpu_core_hour is "true"; want a price`},
		{entry(`"cpu_core_hour": null`), "cpu_core_hour is null"},
		{entry(`"cpu_core_hour": "99999999999"`), "too high"},
		{entry(prices + `, "from": "2026-01-01"`), `from is "2026-01-01"; want a time`},
		{entry(prices + `, "from": "2026-01-01T00:30:00Z"`), "inside an hour; prices change on the hour"},
		{entry(prices + `, "from": "2026-01-01T00:00:00.000000001Z"`), "inside an hour"},
		{entry(prices + `, "to": "2026-01-01T00:00:00+05:30"`), "inside an hour"},
		{entry(prices + `, "to": "9999-01-01T00:00:00Z"`), "1970 to 2261"},
		{entry(prices + `, "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"`), "line 3, column 3: the price ends before it begins"},
		{entry(prices + "},\n  {" + prices), "line 4, column 3: the price begins before the one above it ends"},
		{entry(prices + `, "to": "2026-01-01T01:00:00Z"},` + "\n  {" + prices + `, "from": "2026-01-01T00:00:00Z"`), "line 4, column 3: the price begins before"},
		{strings.Repeat(" ", MaxBook+1), "at most 1048576"},
	} {
		b, err := Parse([]byte(tt.text))
		if fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.200s\ngot %v, %v; want %q", tt.text, b, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Default().Format()))
	f.Add([]byte(`{"currency": "USD", "prices": [{"from": "2026-01-01T00:00:00Z", ` + prices + `}]}`))
	f.Add([]byte(`{"prices": [null]}`))
	f.Add([]byte("\x00{\"\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			if fault.Of(err) != fault.Invalid {
				t.Errorf("%q: error of kind %v: %v", data, fault.Of(err), err)
			}
			return
		}
		again, err := Parse([]byte(b.Format()))
		if diff := cmp.Diff(b, again); diff != "" || err != nil {
			t.Errorf("%q: %v (-first +again):\n%s", data, err, diff)
		}
	})
}
