package mapping

import (
	"errors"
	"time"
)

// Durability is what an acknowledged write has beyond what Redis itself promises.
type Durability struct {
	Replicas int           // how many replicas of Redis have it; 0: that is not asked
	Timeout  time.Duration // how long they may take
}

// With is what a write of rows of both asks for: as many replicas as the one that asks for more, and as much time.
func (d Durability) With(other Durability) Durability {
	return Durability{max(d.Replicas, other.Replicas), max(d.Timeout, other.Timeout)}
}

// ErrOtherPrimary says that Redis has another primary than the one that made a write.
var ErrOtherPrimary = errors.New("redis has another primary since")

// Defaults of the durability of a mapping.
const (
	DefaultDurability      = "redis"
	DefaultReplicasTimeout = time.Second
	// maxReplicas is more than anybody has.
	maxReplicas = 100
)

// durability is what the settings say, once they are valid.
func (c *Config) durability() Durability {
	if c.Durability != "replicas" {
		return Durability{}
	}
	return Durability{c.Replicas, c.ReplicasTimeout}
}

func (c *Config) validateDurability(report func(setting, format string, args ...any)) {
	oneOf(report, "durability", c.Durability, []string{"redis", "replicas"})
	switch {
	case c.Durability == "replicas" && c.Write != "behind":
		report("durability", `"replicas" is about rows that are in Redis and not in MySQL yet, and with write = %q there are none; remove it`, c.Write)
	case c.Durability == "replicas" && (c.Replicas < 1 || c.Replicas > maxReplicas):
		report("replicas", `%d; say how many replicas have to have a write, 1 to %d`, c.Replicas, maxReplicas)
	case c.Durability == "redis" && c.Replicas != 0:
		report("replicas", `is for durability = "replicas"; set that, or remove it`)
	}
	if c.ReplicasTimeout < time.Millisecond || c.ReplicasTimeout > time.Hour {
		report("replicas_timeout", "%v is out of range; want 1ms to 1h", c.ReplicasTimeout)
	}
}
