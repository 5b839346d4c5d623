package mapping

import (
	"slices"
	"time"
)

// DefaultOnRedisDown is what a read of a key is answered with while Redis cannot be reached.
const DefaultOnRedisDown = "error"

// onRedisDown checks that setting: MySQL may only answer in place of Redis if it is never behind it.
func onRedisDown(report func(setting, format string, args ...any), got, write string) {
	oneOf(report, "on_redis_down", got, []string{"error", "mysql"})
	if got == "mysql" && write == "behind" {
		report("on_redis_down", `"mysql" would answer with rows from before the last writes, which with write = "behind" may be in Redis only; use "error", or write = "deny"`)
	}
}

// queryOnRedisDown is onRedisDown for a query.
func queryOnRedisDown(report func(setting, format string, args ...any), got, value string) {
	oneOf(report, "on_redis_down", got, []string{"error", "mysql"})
	if got == "mysql" && !slices.Contains([]string{"json", "hash"}, value) {
		report("on_redis_down", `"mysql" answers GET, MGET and HGETALL, none of which reads a %s; use "error"`, value)
	}
}

// Example is a key of the mapping with value in the place of each variable. It need not name a row.
func (m *Mapping) Example(value []byte) []byte {
	key := slices.Clone(m.pattern.literals[0])
	for _, literal := range m.pattern.literals[1:] {
		key = append(append(key, value...), literal...)
	}
	return key
}

// maxEarlyRefresh is far more than anybody wants.
const maxEarlyRefresh = 1000

func earlyRefresh(report func(setting, format string, args ...any), beta float64, ttl time.Duration) {
	switch {
	case !(beta >= 0 && beta <= maxEarlyRefresh):
		report("early_refresh", "%v is not within 0 and %d; 1 is what most want", beta, maxEarlyRefresh)
	case beta > 0 && ttl == 0:
		report("early_refresh", `is about the end of ttl, and ttl = "0" is without end; set ttl, or remove it`)
	}
}
