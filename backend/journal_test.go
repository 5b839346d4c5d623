package backend

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/test/harness"
)

// open opens the journal as a process with another configuration would.
func openJournal(t *testing.T, rdb *redis.Client, change func(*JournalConfig)) (*Journal, error) {
	t.Helper()
	cfg := DefaultJournal()
	if change != nil {
		change(&cfg)
	}
	return OpenJournal(t.Context(), rdb, cfg, zerolog.Nop())
}

func TestJournalLayout(t *testing.T) {
	rdb := openRedis(t, harness.StartRedis(t).Addr)
	meta := func() string {
		m := rdb.HGetAll(context.Background(), "keyrow:meta").Val()
		return m["format"] + "/" + m["partitions"]
	}
	eight := func(c *JournalConfig) { c.Partitions = 8 }
	want := func(what, layout string, err error, refused bool) {
		t.Helper()
		var layoutErr *LayoutError
		if errors.As(err, &layoutErr) != refused || err != nil && !refused {
			t.Errorf("%s: %v", what, err)
		}
		if got := meta(); got != layout {
			t.Errorf("%s: the layout is %s, want %s", what, got, layout)
		}
	}
	_, err := openJournal(t, rdb, nil)
	want("first process", "1/4", err, false)
	_, err = openJournal(t, rdb, nil)
	want("second process", "1/4", err, false)
	_, err = openJournal(t, rdb, eight)
	want("other layout of an empty journal", "1/8", err, false)

	for _, pending := range []struct {
		what string
		add  func()
	}{
		{"dirty", func() { rdb.ZAdd(t.Context(), "keyrow:{7}:dirty", redis.Z{Score: 1, Member: "+k"}) }},
		{"flushing", func() { rdb.ZAdd(t.Context(), "keyrow:{6}:flushing", redis.Z{Score: 1, Member: "+k"}) }},
		{"parked", func() { rdb.HSet(t.Context(), "keyrow:{5}:parked", "k", "{}") }},
	} {
		pending.add()
		_, err = openJournal(t, rdb, nil)
		want("other layout while a key is "+pending.what, "1/8", err, true)
		if err != nil && !strings.Contains(err.Error(), "journal.partitions = 8") {
			t.Errorf("the way out is missing: %v", err)
		}
		_, err = openJournal(t, rdb, eight)
		want("same layout while a key is "+pending.what, "1/8", err, false)
		rdb.Del(t.Context(), "keyrow:{7}:dirty", "keyrow:{6}:flushing", "keyrow:{5}:parked")
	}
	rdb.HSet(t.Context(), "keyrow:meta", "format", "99")
	rdb.ZAdd(t.Context(), "keyrow:{7}:dirty", redis.Z{Score: 1, Member: "+k"})
	_, err = openJournal(t, rdb, eight)
	want("another format", "99/8", err, true)
}

// The layout and the policy may change under a running process; it must stop marking then.
func TestJournalLooksAgain(t *testing.T) {
	rdb := openRedis(t, harness.StartRedis(t).Addr)
	j, err := openJournal(t, rdb, nil)
	if err != nil {
		t.Fatal(err)
	}
	admits := func(want string) {
		t.Helper()
		if err := j.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		switch err := j.Admit(); {
		case want == "" && err != nil:
			t.Errorf("refused: %v", err)
		case want != "" && (err == nil || !strings.HasPrefix(err.Error(), "ERR keyrow: ") ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nothing was applied")):
			t.Errorf("want a refusal with %q, got %v", want, err)
		}
	}
	admits("")
	for _, policy := range []string{"allkeys-lru", "volatile-lru"} {
		rdb.ConfigSet(t.Context(), "maxmemory-policy", policy)
		if strings.HasPrefix(policy, "allkeys") {
			admits("maxmemory-policy allkeys-lru")
		} else {
			admits("")
		}
	}
	if _, err := openJournal(t, rdb, func(c *JournalConfig) { c.Partitions = 8 }); err != nil {
		t.Fatal(err)
	}
	rdb.ZAdd(t.Context(), "keyrow:{7}:dirty", redis.Z{Score: 1, Member: "+k"})
	admits("8 partitions")
	rdb.FlushAll(t.Context())
	admits("")
	if got := rdb.HGet(t.Context(), "keyrow:meta", "partitions").Val(); got != "4" {
		t.Errorf("after flushall the layout has %q partitions", got)
	}
}

func TestJournalFull(t *testing.T) {
	fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.MaxPending = 10 }})
	held := newGate()
	p := fl.start(hooked(HookBeforeCommit, held.pass))
	j := p.journal
	for id := range 4 { // a count between the mark and Marked has it twice, for a moment
		if err := j.Admit(); err != nil {
			t.Fatalf("write %d: %v", id, err)
		}
		fl.account(id, id)
		j.Marked(1)
	}
	// Of another process: they show with the next count. (One partition is held up, so some marks stay.)
	<-held.reached
	for id := range 200 {
		fl.account(100+id, id)
	}
	harness.Until(t, "the journal is full", func() bool { return j.Admit() != nil })
	full := false
	for range 1000 {
		err := j.Admit()
		if err == nil {
			continue
		}
		full = true
		if !strings.HasPrefix(err.Error(), "JOURNALFULL keyrow: ") || !strings.Contains(err.Error(), "nothing was applied") {
			t.Fatal(err)
		}
	}
	if !full {
		t.Error("the journal is not full any more while a partition is held up")
	}
	if age := p.Snapshot().OldestAge; age <= 0 || age > time.Hour {
		t.Errorf("the oldest mark is %v old", age)
	}
	close(held.open)
	fl.drained(p)
	harness.Until(t, "the journal admits again", func() bool { return j.Admit() == nil })
}
