package unit

import (
	"testing"

	"pgregory.net/rapid"
)

func TestMeasureParse(t *testing.T) {
	for _, tt := range []struct {
		m    Measure
		text string
		want int64 // -1: refused
	}{
		{CPU, "3.5", 3500},
		{CPU, "0", 0},
		{CPU, "0.001", 1},
		{GPU, " 2 ", 2000},
		{CPU, "0.0001", -1},
		{CPU, "1.", -1},
		{CPU, "", -1},
		{CPU, ".", -1},
		{CPU, "-1", -1},
		{CPU, "+1", -1},
		{CPU, "1e3", -1},
		{CPU, "4 cores", -1},
		{CPU, "9223372036854775807", -1},
		{RAM, "512MiB", 512 << 20},
		{RAM, "2.5 GiB", 2560 << 20},
		{Disk, "1GB", 1 << 30},
		{Disk, "2tb", 2 << 40},
		{Disk, "7B", 7},
		{Disk, "0", 0},
		{Disk, "1", -1},
		{Disk, "0.0001GB", -1},
		{Disk, "1.5B", -1},
		{RAM, "GiB", -1},
		{RAM, "1 GiB 2", -1},
		{RAM, "9000000PiB", -1},
		{RAM, "-1GiB", -1},
		{Net, "100", -1},
	} {
		got, err := tt.m.Parse(tt.text)
		if (err != nil) != (tt.want < 0) || err == nil && got != tt.want {
			t.Errorf("%v.Parse(%q) = %d, %v; want %d", tt.m, tt.text, got, err, tt.want)
		}
	}
}

// TestMeasureParseFormat reads back what is printed, where that is exact.
func TestMeasureParseFormat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<40).Draw(t, "thousandths")
		if got, err := CPU.Parse(CPU.Format(n)); got != n || err != nil {
			t.Fatalf("%d is printed as %s and read as %d, %v", n, CPU.Format(n), got, err)
		}
		b := rapid.Int64Range(0, 10<<10-1).Draw(t, "MiB") * MiB
		if got, err := RAM.Parse(RAM.Format(b)); got != b || err != nil {
			t.Fatalf("%d is printed as %s and read as %d, %v", b, RAM.Format(b), got, err)
		}
	})
}

func FuzzMeasureParse(f *testing.F) {
	for _, s := range []string{"3.5", "2.5 GiB", "0", "1e9", "9223372036854775807PiB", ".", "１"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, m := range Measures() {
			if n, err := m.Parse(s); n < 0 || err != nil && n != 0 {
				t.Errorf("%v.Parse(%q) = %d, %v; want an amount or an error", m, s, n, err)
			}
		}
	})
}
