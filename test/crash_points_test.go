package test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// crashTables and crashConfig have a table for each way to write a row. The table of acct has a constraint that keyrow
// does not know of; that of person a second mapping.
const crashTables = `
CREATE TABLE accounts (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL, CONSTRAINT solvent CHECK (n > -1000));
CREATE TABLE counters (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE tallies (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE sures (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE absents (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY, nick VARCHAR(20) COLLATE utf8mb4_bin NOT NULL UNIQUE, n BIGINT NOT NULL);`

const crashConfig = `
[[mapping]]
name = "acct"
key = "acct:{id}"
table = "accounts"
delete = "row"

[[mapping]]
name = "counter"
key = "counter:{id}"
table = "counters"
value = "string"
column = "n"
delete = "row"

[[mapping]]
name = "tally"
key = "tally:{id}"
table = "tallies"
value = "hash"
delete = "row"

[[mapping]]
name = "sure"
key = "sure:{id}"
table = "sures"
write = "through"
delete = "row"

[[mapping]]
name = "absent"
key = "absent:{id}"
table = "absents"
on_absent = "through"
delete = "row"

[[mapping]]
name = "person"
key = "person:{id}"
table = "people"

[[mapping]]
name = "nick"
key = "nick:{nick}"
table = "people"
`

var crashRows = []harness.Rows{
	{Pattern: "acct:{id}", Table: "accounts"}, {Pattern: "counter:{id}", Table: "counters", Value: "string", Column: "n"},
	{Pattern: "tally:{id}", Table: "tallies", Value: "hash"}, {Pattern: "sure:{id}", Table: "sures"},
	{Pattern: "absent:{id}", Table: "absents"}, {Pattern: "person:{id}", Table: "people"}, {Pattern: "nick:{nick}", Table: "people"},
}

// crash is a command in whose course keyrow is killed, at a labelled point. In commands and keys # stands for a number that
// no other case has.
type crash struct {
	point string
	times int        // how often the point is passed before
	given []string   // commands that are answered and flushed before
	do    []string   // commands of one client; what is under way when keyrow is killed is among them
	rows  [][]string // key, and the number that its row holds in the end: "" for no row
}

// crashes are the steps of everything that is done while a client waits. A point before a step says that nothing was
// applied, one behind it that all was; that is stricter than what is promised of writes that were not acknowledged.
var crashes = []crash{
	{"set.before-exec", 0, []string{"SET acct:# 1"}, []string{"SET acct:# 2"}, [][]string{{"acct:#", "1"}}},
	{"set.after-exec", 0, []string{"SET acct:# 1"}, []string{"SET acct:# 2"}, [][]string{{"acct:#", "2"}}},
	{"set.after-exec", 0, nil, []string{"SET acct:# 2"}, [][]string{{"acct:#", "2"}}},
	{"set.after-exec", 0, nil, []string{"MSET acct:# 2 counter:# 3 person:# 4"}, [][]string{{"acct:#", "2"}, {"counter:#", "3"}, {"person:#", "4"}}},
	{"set.before-exec", 0, nil, []string{"MSET acct:# 2 counter:# 3"}, [][]string{{"acct:#", ""}, {"counter:#", ""}}},

	{"change.before-script", 0, []string{"SET counter:# 5"}, []string{"INCR counter:#"}, [][]string{{"counter:#", "5"}}},
	{"change.after-script", 0, []string{"SET counter:# 5"}, []string{"INCR counter:#"}, [][]string{{"counter:#", "6"}}},
	// The row is not in Redis: the first script only says so.
	{"change.after-script", 0, []string{"SET counter:# 5 PXAT 1"}, []string{"INCR counter:#"}, [][]string{{"counter:#", "5"}}},
	{"change.before-script", 1, []string{"SET counter:# 5 PXAT 1"}, []string{"INCR counter:#"}, [][]string{{"counter:#", "5"}}},
	{"change.after-script", 1, []string{"SET counter:# 5 PXAT 1"}, []string{"INCR counter:#"}, [][]string{{"counter:#", "6"}}},
	{"change.after-script", 2, nil, []string{"HSET tally:# n 3"}, [][]string{{"tally:#", "3"}}},
	{"change.before-script", 0, []string{"HSET tally:# n 3"}, []string{"HINCRBY tally:# n 1"}, [][]string{{"tally:#", "3"}}},
	{"change.after-script", 0, []string{"HSET tally:# n 3"}, []string{"HINCRBY tally:# n 1"}, [][]string{{"tally:#", "4"}}},
	{"change.after-script", 0, []string{"SET acct:# 1"}, []string{"SET acct:# 2 XX GET"}, [][]string{{"acct:#", "2"}}},
	{"change.after-script", 0, []string{"SET acct:# 1"}, []string{"GETDEL acct:#"}, [][]string{{"acct:#", ""}}},

	{"delete.before-script", 0, []string{"SET acct:# 1"}, []string{"DEL acct:#"}, [][]string{{"acct:#", "1"}}},
	{"delete.after-script", 0, []string{"SET acct:# 1"}, []string{"DEL acct:#"}, [][]string{{"acct:#", ""}}},
	{"delete.before-script", 1, []string{"SET acct:# 1 PXAT 1"}, []string{"DEL acct:#"}, [][]string{{"acct:#", "1"}}},
	{"delete.after-script", 1, []string{"SET acct:# 1 PXAT 1"}, []string{"DEL acct:#"}, [][]string{{"acct:#", ""}}},

	{"del.asked", 0, []string{"SET acct:# 1 PXAT 1"}, []string{"DEL acct:#"}, [][]string{{"acct:#", "1"}}},

	{"msetnx.before-script", 1, nil, []string{"MSETNX acct:# 1 counter:# 2"}, [][]string{{"acct:#", ""}, {"counter:#", ""}}},
	{"msetnx.after-script", 1, nil, []string{"MSETNX acct:# 1 counter:# 2"}, [][]string{{"acct:#", "1"}, {"counter:#", "2"}}},

	{"script.before-exec", 0, []string{"SET counter:# 1"}, []string{"EVAL return(redis.call('SET',KEYS[1],'2')) 1 counter:#"}, [][]string{{"counter:#", "1"}}},
	{"script.after-exec", 0, []string{"SET counter:# 1"}, []string{"EVAL return(redis.call('SET',KEYS[1],'2')) 1 counter:#"}, [][]string{{"counter:#", "2"}}},

	{"transaction.before-exec", 0, []string{"SET acct:# 1", "SET counter:# 5"}, []string{"MULTI", "SET acct:# 2", "INCR counter:#", "EXEC"},
		[][]string{{"acct:#", "1"}, {"counter:#", "5"}}},
	{"transaction.after-exec", 0, []string{"SET acct:# 1", "SET counter:# 5"}, []string{"MULTI", "DEL acct:#", "INCR counter:#", "HSET tally:# n 1", "EXEC"},
		[][]string{{"acct:#", ""}, {"counter:#", "6"}, {"tally:#", "1"}}},

	{"expire.before-script", 0, nil, []string{"SET acct:# 1", "EXPIRE acct:# 1"}, [][]string{{"acct:#", "1"}}},
	{"expire.after-script", 0, nil, []string{"SET acct:# 1", "EXPIRE acct:# -1"}, [][]string{{"acct:#", "1"}}},

	{"empty.before-script", 0, nil, []string{"SET acct:# 1", "FLUSHALL"}, [][]string{{"acct:#", "1"}}},
	{"empty.after-script", 0, nil, []string{"SET acct:# 1", "FLUSHALL"}, [][]string{{"acct:#", "1"}}},
	{"empty.before-script", 1, nil, []string{"SET acct:# 1", "FLUSHALL"}, [][]string{{"acct:#", "1"}}},

	// In Redis it is written there; else to MySQL first.
	{"present.before-script", 0, []string{"SET absent:# 1"}, []string{"SET absent:# 2"}, [][]string{{"absent:#", "1"}}},
	{"present.after-script", 0, []string{"SET absent:# 1"}, []string{"SET absent:# 2"}, [][]string{{"absent:#", "2"}}},
	{"through.withdrawn", 0, nil, []string{"SET absent:# 2"}, [][]string{{"absent:#", ""}}},
	{"through.committed", 0, nil, []string{"SET absent:# 2"}, [][]string{{"absent:#", "2"}}},
	{"through.written", 0, []string{"SET sure:# 1"}, []string{"SET sure:# 2"}, [][]string{{"sure:#", "1"}}},
	{"through.withdrawn", 0, []string{"SET sure:# 1"}, []string{"SET sure:# 2"}, [][]string{{"sure:#", "1"}}},
	{"through.committed", 0, []string{"SET sure:# 1"}, []string{"SET sure:# 2"}, [][]string{{"sure:#", "2"}}},
	{"through.shown", 0, []string{"SET sure:# 1"}, []string{"SET sure:# 2"}, [][]string{{"sure:#", "2"}}},
	{"through.read", 0, []string{"SET sure:# 1"}, []string{"SET sure:# 2 XX"}, [][]string{{"sure:#", "1"}}},
	{"through.committed", 0, []string{"SET sure:# 1"}, []string{"SET sure:# 2 XX"}, [][]string{{"sure:#", "2"}}},
	{"through.withdrawn", 0, []string{"SET sure:# 1"}, []string{"DEL sure:#"}, [][]string{{"sure:#", "1"}}},
	{"through.committed", 0, []string{"SET sure:# 1"}, []string{"DEL sure:#"}, [][]string{{"sure:#", ""}}},

	{"load.granted", 0, []string{"SET acct:# 1 PXAT 1"}, []string{"GET acct:#"}, [][]string{{"acct:#", "1"}}},
	{"load.selected", 0, []string{"SET acct:# 1 PXAT 1"}, []string{"GET acct:#"}, [][]string{{"acct:#", "1"}}},
	{"load.filled", 0, []string{"SET acct:# 1 PXAT 1"}, []string{"GET acct:#"}, [][]string{{"acct:#", "1"}}},
}

// flushCrashes are the points of a flush.
var flushCrashes = []string{
	"flush.locked", "flush.fenced", "flush.swept", "flush.read", "flush.announced", "flush.before-commit", "flush.committed",
	"flush.dropped", "flush.part", "flush.parked", "flush.deferred", "flush.settled",
}

// notKilledAt are the points at which nobody is killed, and why.
var notKilledAt = map[string]string{"verify.suspected": "keyrow verify is a program of its own, and only drops images"}

// label finds the points in the code: where a hook is called with one, and where one has a name.
var label = regexp.MustCompile(`(?:\.(?:at|hook)\(|\bHook\w+\s*= )"([a-z]+\.[a-z-]+)"`)

// Whoever adds a step to the code, with a point, has to add a case that kills there.
func TestEveryPointHasACrash(t *testing.T) {
	t.Parallel()
	known := maps.Clone(notKilledAt)
	for _, point := range flushCrashes {
		known[point] = "killed"
	}
	for _, c := range crashes {
		known[c.point] = "killed"
	}
	found := map[string]bool{}
	for _, folder := range []string{"../proxy", "../backend"} {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, match := range label.FindAllSubmatch(code, -1) {
				point := string(match[1])
				if found[point] = true; known[point] == "" {
					t.Errorf("%s has a point %q, and no case kills keyrow there", file, point)
				}
			}
		}
	}
	for point := range known {
		if !found[point] {
			t.Errorf("the point %q is not in the code", point)
		}
	}
}

// crashShop is a shop with the tables of this file.
func crashShop(t *testing.T, hooks *harness.Hooks) *shop {
	t.Helper()
	return openTables(t, crashTables, crashConfig, harness.Options{Hooks: hooks,
		Set: map[string]string{"mysql.timeout": "1s", "journal.session_timeout": "1s", "journal.partitions": "1"}})
}

// command makes the words of one of crashes: a number behind a key of JSON is the image that holds it.
func (s *shop) command(text string, id int) []string {
	words := strings.Fields(strings.ReplaceAll(text, "#", strconv.Itoa(id)))
	for i, word := range words {
		if _, err := strconv.Atoi(word); err != nil || i == 0 {
			continue
		}
		switch kind, _, _ := strings.Cut(words[i-1], ":"); kind {
		case "acct", "sure", "absent":
			if !strings.Contains(words[0], "EXPIRE") {
				words[i] = `{"n":` + word + `}`
			}
		case "person":
			words[i] = `{"nick":"` + strconv.Itoa(id) + `","n":` + word + `}`
		}
	}
	return words
}

var crashTable = map[string]string{"acct": "accounts", "counter": "counters", "tally": "tallies", "sure": "sures", "absent": "absents", "person": "people"}

// holds compares the number that a row holds, in MySQL and as keyrow answers, with n; "" is no row.
func (s *shop) holds(key, n string) {
	s.t.Helper()
	kind, id, _ := strings.Cut(key, ":")
	if got := s.row("SELECT n FROM "+crashTable[kind]+" WHERE id = ?", id); got != n {
		s.t.Errorf("the row of %s holds %q, want %q", key, got, n)
	}
	reply := "nil"
	if n != "" {
		reply = n
	}
	switch kind {
	case "tally":
		s.want(reply, "HGET", key, "n")
	case "counter":
		s.want(reply, "GET", key)
	default:
		if got := s.show("GET", key); (got == "nil") != (n == "") || n != "" && !strings.Contains(got, `"n":`+n+`}`) {
			s.t.Errorf("GET %s is %s, want the row with %q", key, got, n)
		}
	}
}

// keyrow is killed in each step of what it does for a client that waits, and started again: the journal drains, and the
// step was done as a whole or not at all.
func TestKilledInEveryStep(t *testing.T) {
	t.Parallel()
	// Several shops share the cases, to have them done sooner.
	const shops = 3
	for part := range shops {
		t.Run(strconv.Itoa(part), func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "*")
			hooks.Arm()
			s := crashShop(t, hooks)
			for id := part; id < len(crashes); id += shops {
				s.crash(t, hooks, crashes[id], id)
			}
			s.Equal(crashRows...)
		})
	}
}

// crash kills keyrow in one case.
func (s *shop) crash(t *testing.T, hooks *harness.Hooks, c crash, id int) {
	t.Helper()
	name := c.point + " of " + strings.Join(c.do, ", ")
	for _, text := range c.given {
		if _, err := s.doWords(s.command(text, id)); err != nil {
			t.Fatalf("%s: %s: %v", name, text, err)
		}
	}
	s.Settled()
	hooks.Arm(c.point)
	again := c.point == "empty.before-script" && c.times > 0
	if again {
		hooks.Arm(c.point, "empty.after-script", "flush.before-commit")
	}
	p := dial(t, s.Addr)
	for _, text := range c.do {
		p.send(encode(s.command(text, id)...))
	}
	if again {
		// FLUSHALL only comes back to the point if it found a write that was not flushed.
		flush := hooks.Wait("flush.before-commit")
		hooks.Wait(c.point).Release()
		hooks.Wait("empty.after-script").Release()
		flush.Release()
		c.times--
	}
	for range c.times {
		hooks.Wait(c.point).Release()
	}
	hooks.Wait(c.point)
	s.Kill()
	hooks.Arm()
	s.Start()
	s.Settled()
	for _, row := range c.rows {
		s.holds(strings.ReplaceAll(row[0], "#", strconv.Itoa(id)), row[1])
	}
	if t.Failed() {
		t.Fatalf("%s failed", name)
	}
}

// doWords is Do of words.
func (s *shop) doWords(words []string) (any, error) {
	args := make([]any, len(words))
	for i, word := range words {
		args[i] = word
	}
	return s.Do(args...)
}

// keyrow is killed in each step of a flush, of rows of every kind, while clients go on: the journal drains, and each row is
// what its last write made of it.
func TestKilledInEveryStepOfAFlush(t *testing.T) {
	t.Parallel()
	for _, point := range flushCrashes {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, point)
			hooks.Arm()
			s := crashShop(t, hooks)
			say := func(texts ...string) {
				t.Helper()
				for _, text := range texts {
					if _, err := s.doWords(s.command(text, 7)); err != nil {
						t.Errorf("%s: %v", text, err)
					}
				}
			}
			say("SET acct:1 1", "SET acct:2 1", "SET acct:3 1", "SET acct:4 1", "SET person:1 1", "HSET tally:1 n 1")
			s.Settled()
			s.want(`{"id":1,"nick":"7","n":1}`, "GET", "nick:7")
			s.want(`{"id":4,"n":1}`, "GET", "acct:4")
			s.Kill()
			hooks.Arm(point)
			s.Start()

			unlock := func() error { return nil }
			if point == "flush.deferred" {
				tx, err := s.MySQL.DB(s.DB).BeginTx(context.Background(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer tx.Rollback()
				if _, err := tx.Exec("SELECT * FROM accounts WHERE id = 1 FOR UPDATE"); err != nil {
					t.Fatal(err)
				}
				unlock = tx.Rollback
			}
			say("SET counter:9 1") // so that what is new waits for the next process as well
			p := dial(t, s.Addr)
			multi := []string{"MULTI", "SET acct:1 2", "SET acct:2 2", "DEL acct:3", "DEL acct:4", "SET acct:5 2", "SET acct:6 -5000",
				"HSET tally:1 n 2", "SET counter:1 2", "EVAL return(redis.call('SET',KEYS[1],'2')) 1 counter:2", "SET person:1 2", "EXEC"}
			for _, text := range multi {
				p.send(encode(s.command(text, 7)...))
			}
			for range multi {
				p.reply()
			}
			hooks.Wait(point)
			say("SET acct:1 3", "DEL acct:2", "SET acct:3 3", "INCR counter:1")
			s.Kill()
			hooks.Arm()
			s.Start()
			if err := unlock(); err != nil {
				t.Fatal(err)
			}
			s.Settled("acct:6")
			check := map[string]string{"acct:1": "3", "acct:2": "", "acct:3": "3", "acct:4": "", "acct:5": "2",
				"tally:1": "2", "counter:1": "3", "counter:2": "2", "counter:9": "1", "person:1": "2"}
			for _, key := range slices.Sorted(maps.Keys(check)) {
				s.holds(key, check[key])
			}
			s.want(`{"id":1,"nick":"7","n":2}`, "GET", "nick:7")
			if got := s.row("SELECT COUNT(*) FROM accounts WHERE id = 6"); got != "0" {
				t.Error("the row that MySQL refuses is there")
			}
			// What is parked is not forgotten either.
			say("SET acct:6 6")
			s.Settled()
			s.holds("acct:6", "6")
			s.Equal(crashRows...)
		})
	}
}
