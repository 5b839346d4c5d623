package mapping

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Rate is how often a second something may happen; 0: as often as it likes.
type Rate float64

// The limits of a [Rate] that is not 0.
const (
	minRate = Rate(1) / 3600
	maxRate = Rate(1e9)
)

var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// ParseRate reads "1000/s", "30/m", "5/h", or a number, which is for each second.
func ParseRate(text string) (Rate, error) {
	number, unit, divided := strings.Cut(text, "/")
	per, known := rateUnits[unit]
	if !divided {
		per, known = time.Second, true
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fmt.Errorf(`%q is not a rate, like "1000/s" or "30/m"`, text)
	}
	return Rate(n / per.Seconds()), nil
}

// String is the rate as the configuration has it.
func (r Rate) String() string {
	n, unit := float64(r), "s"
	switch {
	case r == 0 || n == math.Trunc(n):
	case n*60 >= 1:
		n, unit = n*60, "m"
	default:
		n, unit = n*3600, "h"
	}
	return strconv.FormatFloat(n, 'g', 6, 64) + "/" + unit
}

func (r Rate) validate(report func(setting, format string, args ...any)) {
	if r != 0 && (r < minRate || r > maxRate) {
		report("max_selects", `%s is out of range; want 0 for no limit, or "1/h" to "1000000000/s"`, r)
	}
}
