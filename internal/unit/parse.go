package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// suffixes are those of amounts of memory and disk. GB is 1024 MB, as Aurora
// and its configuration have it.
var suffixes = map[string]int64{
	"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40, "PB": 1 << 50,
	"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40, "PIB": 1 << 50,
}

// Parse reads an amount of m as people write it, "3.5" cores or GPUs and "2.5
// GiB", into the unit of its field: what [Measure.Format] prints, and more. The
// error has no kind: the caller knows whose fault it is.
func (m Measure) Parse(s string) (int64, error) {
	number, scale := strings.TrimSpace(s), int64(1000)
	switch m {
	case CPU, GPU:
	case RAM, Disk:
		i := strings.LastIndexAny(number, "0123456789.") + 1
		suffix := strings.ToUpper(strings.TrimSpace(number[i:]))
		bytes, ok := suffixes[suffix]
		if !ok && number != "0" {
			return 0, fmt.Errorf("%v is %.40q; want an amount such as 512MiB or 20GiB", m, s)
		}
		number, scale = number[:i], max(bytes, 1)
	default:
		return 0, fmt.Errorf("%v is not read from text", m)
	}
	n, err := thousandths(number)
	if err != nil || n > math.MaxInt64/scale || n*scale%1000 != 0 {
		if m == CPU || m == GPU {
			return 0, fmt.Errorf("%v is %.40q; want a number such as 3.5, with at most three digits after the point", m, s)
		}
		return 0, fmt.Errorf("%v is %.40q; want an amount such as 512MiB or 20GiB", m, s)
	}
	if m == CPU || m == GPU {
		return n, nil
	}
	return n * scale / 1000, nil
}

// thousandths reads a decimal without sign.
func thousandths(s string) (int64, error) {
	whole, frac, point := strings.Cut(s, ".")
	if whole == "" || len(frac) > 3 || point && frac == "" || strings.Trim(whole+frac, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(whole+frac+"000"[len(frac):], 10, 64)
}
