package backend

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// watch is a Watch of the mappings in force.
func (fl *flushing) watch() *Watch {
	fl.t.Helper()
	db, err := OpenMySQL(MySQLConfig{DSN: fl.mysql.DSN(fl.db), MaxOpen: 2, Timeout: 30 * time.Second})
	if err != nil {
		fl.t.Fatal(err)
	}
	fl.t.Cleanup(func() { db.Close() })
	return NewWatch(WatchOptions{DB: db, Set: fl.set.Load(), Swap: func(set *mapping.Set) { fl.set.Store(set) },
		Log: zerolog.New(zerolog.NewTestWriter(fl.t))})
}

// watching has the flusher use the mappings of w.
func watching(w *Watch) func(*Flusher) {
	return func(f *Flusher) { f.look, f.mappings = w.Look, w.Mappings }
}

// mapped is a mapping of the table of its name by id.
func mapped(name string) mapping.Config {
	c := mapping.Default()
	c.Name, c.Key, c.Table = name, name+":{id}", name
	return c
}

func (fl *flushing) look(w *Watch) {
	fl.t.Helper()
	if err := w.Look(fl.t.Context()); err != nil {
		fl.t.Fatal(err)
	}
}

// TestAlterAheadOfFlush: a write that is in the journal when its table is altered lands in the right columns, or is
// parked with the reason. The process finds out by itself: by the error that the flush runs into, or by looking.
func TestAlterAheadOfFlush(t *testing.T) {
	const table = "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(10), b VARCHAR(10) DEFAULT 'old')"
	for _, test := range []struct {
		what   string
		alter  string
		rows   string // after the flush of rows 1, which was there, and 2, which was not
		parked string // why both are, or else are not; behind |, where MySQL is the one to find out
	}{
		{"nothing", "", "1,x1,y1;2,x2,y2", ""},
		{"add", "ADD c INT NOT NULL DEFAULT 7; UPDATE t SET c = 8 WHERE id = 1", "1,x1,y1,8;2,x2,y2,7", ""},
		{"add between", "ADD c INT AFTER a; UPDATE t SET c = 8", "1,x1,8,y1;2,x2,,y2", ""},
		{"add a time", "ADD c DATETIME NOT NULL DEFAULT (DATE('2024-02-02')); UPDATE t SET c = '2001-01-01'",
			"1,x1,y1,2001-01-01 00:00:00;2,x2,y2,2024-02-02 00:00:00", ""},
		{"add and another unique key", "ADD c INT, ADD UNIQUE (a); UPDATE t SET c = 8", "1,x1,y1,8;2,x2,y2,", ""},
		{"drop", "DROP b", "1,x1;2,x2", ""},
		{"rename", "CHANGE b c VARCHAR(10)", "1,a,b", `column \"b\" is gone from the table and \"c\" is new there`},
		{"drop and add", "DROP b, ADD c INT DEFAULT 7", "1,a,7", `column \"b\" is gone from the table and \"c\" is new there`},
		{"swap with order", "MODIFY a VARCHAR(10) AFTER b", "1,y1,x1;2,y2,x2", ""},
		{"number", "MODIFY b INT; ", "1,a,0", "Incorrect integer value"},
		{"binary", "MODIFY b VARBINARY(10)", "1,x1,y1;2,x2,y2", ""},
		{"shorter", "MODIFY b VARCHAR(1)", "1,a,b", "2 characters, at most 1|Data too long"},
		{"wider key", "MODIFY id BIGINT", "1,x1,y1;2,x2,y2", ""},
	} {
		for _, when := range []string{"looked", "found out"} {
			t.Run(test.what+"/"+when, func(t *testing.T) {
				t.Parallel()
				fl := newFlushing(t, flushSetup{tables: table, mappings: []mapping.Config{mapped("t")},
					journal: func(c *JournalConfig) { c.Partitions = 1 }})
				initial := "INSERT INTO t VALUES (1, 'a', 'b')"
				if test.what == "number" {
					initial = "INSERT INTO t VALUES (1, 'a', '0')"
				}
				fl.mysql.Exec(fl.db, initial)
				fl.write("t:1", `{"id":1,"a":"x1","b":"y1"}`, -1)
				fl.write("t:2", `{"id":2,"a":"x2","b":"y2"}`, -1)

				w := fl.watch()
				var p *process
				reason, found, _ := strings.Cut(test.parked, "|")
				if when == "looked" {
					fl.alter(test.alter)
					fl.look(w)
					p = fl.start(watching(w))
				} else {
					read := newGate()
					p = fl.start(watching(w), hooked(HookRead, read.pass))
					<-read.reached
					fl.alter(test.alter)
					close(read.open)
					if found != "" {
						reason = found
					}
				}
				fl.drained(p)

				fl.want("SELECT GROUP_CONCAT(CONCAT_WS(',', "+fl.columns("t")+") ORDER BY id SEPARATOR ';') FROM t", test.rows)
				want := map[string]string{}
				if reason != "" {
					want["t:1"], want["t:2"] = reason, reason
				}
				fl.parked(want)
			})
		}
	}
}

// alter runs what follows ALTER TABLE t, and further statements behind semicolons.
func (fl *flushing) alter(statements string) {
	fl.t.Helper()
	first, rest, _ := strings.Cut(statements, ";")
	if first != "" {
		fl.mysql.Exec(fl.db, "ALTER TABLE t "+first)
	}
	if strings.TrimSpace(rest) != "" {
		fl.mysql.Exec(fl.db, rest)
	}
}

// columns lists the columns of a table in their order, NULL as an empty text.
func (fl *flushing) columns(table string) string {
	fl.t.Helper()
	return fl.mysql.Text(fl.db, "SELECT GROUP_CONCAT(CONCAT('IFNULL(', COLUMN_NAME, ', \"\")') ORDER BY ORDINAL_POSITION) "+
		"FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?", table)
}

// TestAlterNeedsAColumn: a row that is there is written all the same; one that is not, cannot be.
func TestAlterNeedsAColumn(t *testing.T) {
	fl := newFlushing(t, flushSetup{tables: "CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 0)",
		mappings: []mapping.Config{mapped("t")}})
	fl.write("t:1", `{"id":1,"a":1}`, -1)
	fl.write("t:2", `{"id":2,"a":2}`, -1)
	fl.alter("ADD c INT NOT NULL; UPDATE t SET c = 5")
	w := fl.watch()
	fl.look(w)
	p := fl.start(watching(w))
	fl.drained(p)
	fl.want("SELECT CONCAT_WS(',', id, a, c) FROM t", "1,1,5")
	fl.parked(map[string]string{"t:2": "from before a column that a new row needs"})

	fl.write("t:2", `{"id":2,"a":2,"c":6}`, -1)
	fl.drained(p)
	fl.want("SELECT CONCAT_WS(',', id, a, c) FROM t WHERE id = 2", "2,2,6")
	fl.parked(nil)
}

// TestAlterKnownToAnother: the owner of the partition learns of a column from an image that another process wrote.
func TestAlterKnownToAnother(t *testing.T) {
	fl := newFlushing(t, flushSetup{tables: "CREATE TABLE t (id INT PRIMARY KEY, a INT)", mappings: []mapping.Config{mapped("t")}})
	p := fl.start(watching(fl.watch()))
	fl.alter("ADD c INT")
	fl.write("t:1", `{"id":1,"a":1,"c":2}`, -1)
	fl.drained(p)
	fl.parked(nil)
	fl.want("SELECT CONCAT_WS(',', id, a, c) FROM t", "1,1,2")
}

// TestAlterSuspends: the marks of a mapping whose table is gone wait, those of others do not; and it goes on by itself.
func TestAlterSuspends(t *testing.T) {
	fl := newFlushing(t, flushSetup{
		tables:   "CREATE TABLE t (id INT PRIMARY KEY, a INT); CREATE TABLE u (id INT PRIMARY KEY, a INT)",
		mappings: []mapping.Config{mapped("t"), mapped("u")}})
	w := fl.watch()
	p := fl.start(watching(w))
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Add(1)
	go func() { defer running.Done(); w.Run(ctx) }()
	defer running.Wait()
	defer stop()

	fl.mysql.Exec(fl.db, "RENAME TABLE t TO elsewhere")
	fl.look(w)
	fl.write("t:1", `{"id":1,"a":1}`, -1)
	fl.write("u:1", `{"id":1,"a":1}`, -1)
	harness.Until(t, "the other mapping is flushed", func() bool { return fl.mysql.Text(fl.db, "SELECT COUNT(*) FROM u") == "1" })
	m := w.Mappings().Match([]byte("t:1"))
	if m.Unfit() == nil {
		t.Error("the mapping without a table is served")
	}
	l := NewLoader(LoaderOptions{Redis: fl.rdb, DB: fl.mysql.DB(fl.db), Journal: fl.keys, Timeout: time.Minute})
	defer l.Close()
	answered := make(chan error, 1)
	l.Load(m, []byte("t:2"), func(_ []byte, _ bool, err error) { answered <- err })
	if err := <-answered; err == nil || !strings.Contains(err.Error(), `mapping "t" is suspended: the table t is gone`) {
		t.Error(err)
	}

	fl.mysql.Exec(fl.db, "RENAME TABLE elsewhere TO t") // Run finds out
	fl.drained(p)
	fl.parked(nil)
	fl.want("SELECT a FROM t", "1")
}

// TestAlterBehindLoader: a row that cannot be read as the mapping says has the table looked at.
func TestAlterBehindLoader(t *testing.T) {
	lg := users(t, loaderSetup{})
	looks := 0
	lg.altered = func() { looks++ }
	lg.mysql.Exec(lg.db, "ALTER TABLE users CHANGE name nick VARCHAR(20)")
	if got := lg.load("user:1"); !strings.Contains(got.String(), "Error 1054") || looks != 1 {
		t.Error(got, looks)
	}
	lg.mysql.Exec(lg.db, "ALTER TABLE users CHANGE nick name VARBINARY(20)")
	lg.mysql.Exec(lg.db, "UPDATE users SET name = x'ff'")
	if got := lg.load("user:1"); !strings.Contains(got.String(), "cannot be shown") || looks != 2 {
		t.Error(got, looks)
	}
}
