package rarely

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// An hour in which MySQL is down is some lines, that tell of all that there would be.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := Log(zerolog.New(&b).Level(zerolog.InfoLevel))
		one, other := log.With().Int("partition", 1).Logger(), log.With().Int("partition", 2).Logger()
		for range 3600 {
			one.Warn().Err(errors.New("mysql is down")).Msg("flush failed")
			other.Warn().Err(errors.New("mysql is down")).Msg("flush failed")
			log.Debug().Msg("flush failed")
			time.Sleep(time.Second)
		}
		log.Info().Msg("mysql answers again")
		lines, told := 0, 0
		for line := range strings.Lines(b.String()) {
			var entry struct {
				Message string
				More    int `json:"and_more_like_it"`
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if lines++; entry.Message == "flush failed" {
				told += 1 + entry.More
			}
		}
		if lines < 60 || lines > 70 || told < 7200-120 || told > 7200 {
			t.Errorf("%d lines tell of %d", lines, told)
		}
		if !strings.HasSuffix(b.String(), `"message":"mysql answers again"}`+"\n") {
			t.Error("another message was left out")
		}

		// After a while without, it is new.
		time.Sleep(burst * pause)
		b.Reset()
		for range 10 {
			one.Warn().Msg("flush failed")
		}
		if n := strings.Count(b.String(), "\n"); n != burst {
			t.Errorf("%d lines after a pause", n)
		}
	})
}

func TestLogManyMessages(t *testing.T) {
	var b bytes.Buffer
	log := Log(zerolog.New(&b))
	for i := range 3 * most {
		log.Warn().Msg(strings.Repeat("x", i))
	}
	if n := strings.Count(b.String(), "\n"); n != 3*most {
		t.Errorf("%d lines", n)
	}
}
