package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// settle is how long a change may take on its way to MySQL.
const settle = 15 * time.Second

// step is one stop of the tour: something to do and what has to come of it.
type step struct {
	title string
	line  string // as typed at the prompt; SQL and REDIS as there
	// want is the answer, or the beginning of it if it ends in "…". check, if set, looks closer.
	want  string
	check func(answer string) error
	// comes asks again until the answer is right: the change takes a moment.
	comes bool
}

// adaKing is what the tour, and the welcome, make of user 42.
const adaKing = `{"id":42,"name":"Ada King","email":"ada@example.com","balance":99.95,"created_at":"2024-03-01 09:30:00"}`

var steps = []step{{
	title: "a row, through the cache: this miss reads MySQL and fills Redis",
	line:  "GET user:42",
	want:  `{"id":42,"name":"Ada Lovelace","email":"ada@example.com","balance":100.50,"created_at":"2024-03-01 09:30:00"}`,
}, {
	title: "the copy in Redis has the mapping's ttl, 10 minutes, give or take a tenth",
	line:  "TTL user:42",
	check: func(answer string) error { return between(answer, 530, 660) },
}, {
	title: "the second time Redis answers",
	line:  "GET user:42",
	want:  `{"id":42,"name":"Ada Lovelace",…`,
}, {
	title: "no such row",
	line:  "GET user:4242",
	want:  "(nil)",
}, {
	title: "a write: Redis has it at once, MySQL a moment later",
	line:  "SET user:42 '" + adaKing + "'",
	want:  "OK",
}, {
	line: "GET user:42",
	want: adaKing,
}, {
	line:  "SQL SELECT name, balance FROM users WHERE id = 42",
	want:  "name      balance\n--------  -------\nAda King  99.95\n(1 row(s))",
	comes: true,
}, {
	title: "a row MySQL could not store is refused, and nothing changes",
	line:  `SET user:42 '{"id":42,"name":"` + strings.Repeat("Ada ", 15) + `","created_at":"2024-03-01 09:30:00"}'`,
	check: mentions("(error)", "keyrow", "name", "40"),
}, {
	line:  "SET user:42 not-json",
	check: mentions("(error)", "keyrow"),
}, {
	title: "so is a key that names no row, for all that MySQL would take 042 for 42",
	line:  "SET user:042 '" + adaKing + "'",
	check: mentions("(error)", "keyrow"),
}, {
	line: "GET user:042",
	want: "(nil)",
}, {
	title: "and a write to a mapping with write = \"deny\"",
	line:  `SET product:moth '{"sku":"moth","title":"Moth","price":0,"stock":7}'`,
	check: mentions("(error)", "keyrow"),
}, {
	line: "GET user:42",
	want: adaKing,
}, {
	title: "many keys in one go; what Redis lacks is read in one SELECT per table",
	line:  "MGET user:1 user:2 user:4242 product:moth order:42:1",
	want: `1) {"id":1,"name":"Grace Hopper","email":"grace@example.com","balance":1952.00,"created_at":"2024-01-09 08:15:00"}
2) {"id":2,"name":"Alan Turing","email":null,"balance":19.36,"created_at":"2024-02-29 12:00:00"}
3) (nil)
4) {"sku":"moth","title":"Moth, in a log book","price":0.99,"stock":1}
5) {"user_id":42,"number":1,"sku":"card-deck","quantity":12,"note":"for the Bernoulli numbers"}`,
}, {
	title: "a row that does not exist yet is inserted",
	line:  `SET order:42:3 '{"user_id":42,"number":3,"sku":"moth","quantity":2,"note":null}'`,
	want:  "OK",
}, {
	line:  "SQL SELECT sku, quantity FROM orders WHERE user_id = 42 AND number = 3",
	want:  "sku   quantity\n----  --------\nmoth  2\n(1 row(s))",
	comes: true,
}, {
	title: "DEL deletes the row where delete = \"row\"",
	line:  "DEL order:42:3",
	want:  "(integer) 1",
}, {
	line: "GET order:42:3",
	want: "(nil)",
}, {
	line:  "SQL SELECT COUNT(*) AS n FROM orders WHERE user_id = 42 AND number = 3",
	want:  "n\n-\n0\n(1 row(s))",
	comes: true,
}, {
	title: "elsewhere it drops the cached copy, as after a change behind keyrow's back",
	line:  "SQL UPDATE users SET balance = 2000 WHERE id = 1",
	want:  "ok, 1 row(s) affected",
}, {
	line: "DEL user:1",
	want: "(integer) 1",
}, {
	line: "GET user:1",
	want: `{"id":1,"name":"Grace Hopper","email":"grace@example.com","balance":2000.00,…`,
}, {
	title: "everything else is Redis's own business",
	line:  "RPUSH todo notes numbers",
	want:  "(integer) 2",
}, {
	line: "LRANGE todo 0 -1",
	want: "1) notes\n2) numbers",
}, {
	title: "nothing is left to flush",
	line:  "KEYROW INFO",
	check: drained,
	comes: true,
}}

// tour takes every step, in order, and fails at the first that is not as it should be.
func (d *demo) tour(ctx context.Context, counters *watch) error {
	p := &player{demo: d}
	defer p.close()
	checked := 0
	for _, s := range steps {
		if s.title != "" {
			d.out.line("\n# %s", s.title)
		}
		d.out.line("%s%s", promptText, s.line)
		answer, err := p.take(ctx, s)
		d.out.text(answer)
		if err != nil {
			return fmt.Errorf("%s: %w", s.line, err)
		}
		if err := counters.look(ctx); err != nil {
			return err
		}
		checked++
	}
	d.out.line("\n%d answers, all as they should be", checked)
	return nil
}

// take asks until the answer is right, or once, if it has to be right at once.
func (p *player) take(ctx context.Context, s step) (answer string, err error) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.Now().Add(settle)
	for {
		answer = p.answer(ctx, s.line)
		if err = s.holds(answer); err == nil || !s.comes || time.Now().After(deadline) {
			return answer, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return answer, context.Cause(ctx)
		}
	}
}

func (s step) holds(answer string) error {
	if s.check != nil {
		return s.check(answer)
	}
	if begin, ok := strings.CutSuffix(s.want, "…"); ok && strings.HasPrefix(answer, begin) {
		return nil
	}
	if answer != s.want {
		return fmt.Errorf("the answer should be\n%s", s.want)
	}
	return nil
}

func between(answer string, low, high int) error {
	n := 0
	if _, err := fmt.Sscanf(answer, "(integer) %d", &n); err != nil || n < low || n > high {
		return fmt.Errorf("the answer should be a number from %d to %d", low, high)
	}
	return nil
}

// mentions wants every one of words in the answer.
func mentions(words ...string) func(string) error {
	return func(answer string) error {
		for _, w := range words {
			if !strings.Contains(answer, w) {
				return fmt.Errorf("the answer should mention %q", w)
			}
		}
		return nil
	}
}

// drained wants that every write has reached MySQL.
func drained(answer string) error {
	counters := parseCounters(answer)
	if pending, ok := counters["pending"]; !ok || pending != 0 {
		return fmt.Errorf("pending should be there, and 0")
	}
	if counters["parked"] != 0 {
		return fmt.Errorf("parked should be 0")
	}
	return nil
}
