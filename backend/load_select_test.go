package backend

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"keyrow/mapping"
)

// Keys that are asked for while as many rounds are under way as may be go together in the next.
func TestLoadTogether(t *testing.T) {
	lg := users(t, loaderSetup{})
	var mu sync.Mutex
	var answers []<-chan answer
	start := func() {
		mu.Lock() // the next hook may be called before this returns
		defer mu.Unlock()
		answers = append(answers, lg.start(lg.Loader, fmt.Sprintf("user:%d", len(answers)+2)))
	}
	rounds, all := 0, make(chan struct{})
	var hold func()
	hold = func() {
		if rounds++; rounds < maxRounds {
			lg.on(HookGranted, hold)
			start() // in a round of its own
			<-all
			return
		}
		for range 200 {
			start()
		}
		close(all)
	}
	lg.on(HookGranted, hold)
	lg.want("user:1", user(1))
	for i, a := range answers {
		if got := <-a; got.String() != user(i+2) {
			t.Errorf("%v, want %s", got, user(i+2))
		}
	}
	if s := lg.Stats(); s.Selects != maxRounds+1 || s.Rows != maxRounds+200 {
		t.Errorf("%+v", s)
	}
}

func TestLoadCompositeKey(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "seat", "seat:{hall}:{no}", "seats"
	lg := newLoading(t, loaderSetup{
		tables: "CREATE TABLE seats (no INT, hall VARCHAR(20) COLLATE utf8mb4_bin, who VARCHAR(20), PRIMARY KEY (no, hall));" +
			"INSERT INTO seats VALUES (1,'a','x'), (2,'a','y'), (1,'b','z')",
		mappings: []mapping.Config{c},
	})
	var answers []<-chan answer
	keys := []string{"seat:a:1", "seat:a:2", "seat:b:1", "seat:b:2"}
	lg.on(HookGranted, func() {
		_, resume := lg.alone("seat:c:1")
		defer resume()
		for _, key := range keys {
			answers = append(answers, lg.start(lg.Loader, key))
		}
	})
	lg.want("seat:c:1", "(nil)")
	for i, want := range []string{
		`{"no":1,"hall":"a","who":"x"}`, `{"no":2,"hall":"a","who":"y"}`, `{"no":1,"hall":"b","who":"z"}`, "(nil)",
	} {
		if got := <-answers[i]; got.String() != want {
			t.Errorf("%s: %s, want %s", keys[i], got, want)
		}
	}
	if s := lg.Stats(); s.Selects != 2 {
		t.Errorf("%+v", s)
	}
}

// A collation that takes two spellings for the same does not make them one key.
func TestLoadAlias(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "login", "login:{name}", "logins"
	lg := newLoading(t, loaderSetup{
		tables: "CREATE TABLE logins (name VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT);" +
			"INSERT INTO logins VALUES ('Bob', 1), ('é', 2)",
		mappings: []mapping.Config{c},
	})
	lg.want("login:bob", "(nil)")
	lg.want("login:Bob", `{"name":"Bob","n":1}`)
	lg.want("login:BOB", "(nil)")
	lg.want("login:Bob ", "(nil)")
	lg.want("login:e", "(nil)")
	lg.want("login:é", `{"name":"é","n":2}`)
}

// Both spellings in one round.
func TestLoadAliasTogether(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "login", "login:{name}", "logins"
	lg := newLoading(t, loaderSetup{
		tables: "CREATE TABLE logins (name VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT);" +
			"INSERT INTO logins VALUES ('Bob', 1), ('al', 2)",
		mappings: []mapping.Config{c},
	})
	var bob, Bob <-chan answer
	lg.on(HookGranted, func() {
		_, resume := lg.alone("login:al")
		defer resume()
		bob, Bob = lg.start(lg.Loader, "login:bob"), lg.start(lg.Loader, "login:Bob")
	})
	lg.want("login:al", `{"name":"al","n":2}`)
	if got := <-bob; got.String() != "(nil)" {
		t.Error(got)
	}
	if got := <-Bob; got.String() != `{"name":"Bob","n":1}` {
		t.Error(got)
	}
}

// The rows of keys are found by an index, however many and whatever the type of the key.
func TestSelectUsesIndex(t *testing.T) {
	var cs []mapping.Config
	for _, key := range []string{"i:{i}", "s:{s}", "l:{l}", "d:{d}", "b:{b}", "c:{i}:{s}"} {
		c := mapping.Default()
		c.Name, c.Key, c.Table = "t"+key[:1], key, "t"+key[:1]
		cs = append(cs, c)
	}
	var tables strings.Builder
	for table, key := range map[string]string{"i": "i", "s": "s", "l": "l", "d": "d", "b": "b", "c": "i,s"} {
		fmt.Fprintf(&tables, "CREATE TABLE t%s (i BIGINT, s VARCHAR(20), l VARCHAR(20) CHARACTER SET latin1, d DATE, "+
			"b VARBINARY(20), n INT, PRIMARY KEY (%s));"+
			"INSERT INTO t%s SELECT seq, seq, seq, FROM_DAYS(700000+seq), seq, seq FROM seq_1_to_5000;", table, key, table)
	}
	lg := newLoading(t, loaderSetup{tables: tables.String(), mappings: cs})
	for _, keys := range [][]string{
		{"i:1", "i:2", "i:3"}, {"s:1", "s:2", "s:3"}, {"l:1", "l:2", "l:3"}, {"b:1", "b:2", "b:3"},
		{"d:1920-01-02", "d:1920-01-03"}, {"c:1:1", "c:2:2", "c:2:3"},
	} {
		m := lg.set.Match([]byte(keys[0]))
		var args []any
		var err error
		for _, key := range keys {
			if args, err = m.KeyArgs(args, []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
		var plan string
		rows, err := lg.Loader.db.Query("EXPLAIN FORMAT=JSON "+selectByKey(m, len(keys)), args...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			if err := rows.Scan(&plan); err != nil {
				t.Fatal(err)
			}
		}
		rows.Close()
		if !strings.Contains(plan, `"access_type": "range"`) {
			t.Errorf("%s: %s", keys, plan)
		}
	}
}
