// Package rarely keeps what goes wrong again and again from filling a log.
package rarely

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// burst is how many lines with one message are written as they come.
	burst = 5
	// pause is how long it takes from then on until the next one is.
	pause = time.Minute
	// most is how many messages are told apart. There are not that many in the program.
	most = 1000
)

// Log returns a logger that writes five lines with the same message as they come, and then one a minute, which says how
// many like it were left out: an hour of something that happens a thousand times a second is 65 lines. A message that was
// not there for five minutes is new. The loggers that are made of it count together.
func Log(log zerolog.Logger) zerolog.Logger {
	return log.Hook(&counter{messages: make(map[string]*message)})
}

type counter struct {
	mu       sync.Mutex
	messages map[string]*message
}

// message is a bucket of tokens: there are up to burst, one comes in each pause, and a line takes one.
type message struct {
	tokens float64
	last   time.Time // when tokens were counted
	out    int       // lines left out since the last one
}

// Run is called with every line that is about to be written.
func (c *counter) Run(e *zerolog.Event, _ zerolog.Level, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	m := c.messages[text]
	if m == nil {
		if len(c.messages) == most {
			clear(c.messages)
		}
		m = &message{tokens: burst, last: now}
		c.messages[text] = m
	}
	m.tokens = min(burst, m.tokens+float64(now.Sub(m.last))/float64(pause))
	m.last = now
	if m.tokens < 1 {
		m.out++
		e.Discard()
		return
	}
	m.tokens--
	if m.out > 0 {
		e.Int("and_more_like_it", m.out)
		m.out = 0
	}
}
