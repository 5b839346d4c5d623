package backend

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// Three processes flush what four clients write and delete, while sessions are killed, processes end and start, and
// owners are held up past their session. What each key was last is what MySQL has in the end.
func TestFlushChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	single := mapping.Default()
	single.Name, single.Key, single.Table, single.Delete = "single", "single:{id}", "singles", "row"
	fl := newAccounts(t, flushSetup{
		tables:   "CREATE TABLE singles (id VARCHAR(20) PRIMARY KEY, balance INT NOT NULL, e INT UNIQUE)",
		mappings: []mapping.Config{single},
		journal: func(c *JournalConfig) {
			c.SessionTimeout, c.Partitions, c.Batch = time.Second, 2, 16
		},
	})
	const clients, keys, steps = 4, 30, 400

	stall := func(r *rand.Rand) func(*Flusher) {
		var mu sync.Mutex
		return func(f *Flusher) {
			f.hook = func(string) {
				mu.Lock()
				long, short := r.IntN(200) == 0, r.IntN(20) == 0
				mu.Unlock()
				switch {
				case long:
					<-time.After(1500 * time.Millisecond)
				case short:
					<-time.After(10 * time.Millisecond)
				}
			}
		}
	}
	var writers sync.WaitGroup
	last := make([]map[string]int, clients) // -1: deleted
	for c := range clients {
		last[c] = make(map[string]int)
		writers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(c)))
			for n := range steps {
				kind := []string{"account", "single"}[r.IntN(2)]
				id := c*keys + r.IntN(keys)
				key := fmt.Sprint(kind, ":", id)
				if r.IntN(4) == 0 {
					fl.remove(key)
					last[c][key] = -1
				} else {
					image := fmt.Sprintf(`{"id":%d,"balance":%d}`, id, n)
					if kind == "single" {
						image = fmt.Sprintf(`{"id":"%d","balance":%d,"e":null}`, id, n)
					}
					fl.write(key, image, -1)
					last[c][key] = n
				}
				if r.IntN(10) == 0 {
					<-time.After(time.Duration(r.IntN(20)) * time.Millisecond)
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 99))
	processes := make([]*process, 3)
	for i := range processes {
		processes[i] = fl.start(stall(rand.New(rand.NewPCG(seed, 100+uint64(i)))))
	}
	written := make(chan struct{})
	go func() {
		writers.Wait()
		close(written)
	}()
	for n, going := uint64(0), true; going; n++ {
		switch r.IntN(3) {
		case 0:
			fl.mysql.Exec("", "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; FOR s IN (SELECT ID FROM "+
				"information_schema.PROCESSLIST WHERE DB = '"+fl.db+"' AND ID <> CONNECTION_ID() ORDER BY RAND() LIMIT 1) "+
				"DO EXECUTE IMMEDIATE CONCAT('KILL ', s.ID); END FOR; END")
		case 1:
			i := r.IntN(len(processes))
			processes[i].stop()
			processes[i] = fl.start(stall(rand.New(rand.NewPCG(seed, 200+n))))
		}
		select {
		case <-written:
			going = false
		case <-time.After(time.Duration(r.IntN(100)) * time.Millisecond):
		}
	}
	fl.drained(processes[0])
	harness.Settled(t, fl.rdb, fl.cfg.Prefix)

	want := make(map[string]bool)
	for _, values := range last {
		for key, n := range values {
			if n >= 0 {
				want[fmt.Sprint(key, "=", n)] = true
			}
		}
	}
	all := fl.mysql.Text(fl.db, "SELECT CONCAT((SELECT COALESCE(JSON_ARRAYAGG(CONCAT('account:', id, '=', balance)), '[]') FROM accounts), "+
		"(SELECT COALESCE(JSON_ARRAYAGG(CONCAT('single:', id, '=', balance)), '[]') FROM singles))")
	got := 0
	for _, row := range strings.FieldsFunc(all, func(r rune) bool { return strings.ContainsRune(`[],"`, r) }) {
		got++
		if !want[row] {
			t.Errorf("mysql has %s", row)
		}
		delete(want, row)
	}
	for row := range want {
		t.Errorf("mysql has not %s", row)
	}
	t.Logf("%d rows", got)
}
