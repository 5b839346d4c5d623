package backend

import (
	"fmt"
	"math"
	"strconv"
	"testing"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// What bad rows cost, as MySQL counts it: at most 2*log2(n)+2 statements more for each, wherever they are, and the others
// land within two rounds. In a table with another unique index, rows that are there are told from others first.
func TestBadRowsCost(t *testing.T) {
	my := harness.StartMySQL(t)
	for _, table := range []struct {
		name, index string
		balance     int // of a bad row
		perInsert   int // rows in one statement
	}{
		{"plain", "CHECK (balance >= 0)", -1, maxInserts},
		{"unique", "UNIQUE (balance)", 1 << 30, maxDeletes},
	} {
		fl := newFlushing(t, flushSetup{mysql: my, tables: "CREATE TABLE accounts (id INT PRIMARY KEY, balance INT NOT NULL, " + table.index + ")",
			mappings: []mapping.Config{accountsMapping()}, journal: func(c *JournalConfig) { c.Partitions, c.Batch = 1, 10_000 }}) // however fast MySQL is
		fl.account(1<<30, 1<<30)
		p := fl.start()
		fl.drained(p)
		for _, test := range []struct{ n, bad, first, step int }{
			{1000, 1, 0, 1}, {1000, 1, 777, 1}, {1000, 1, 999, 1},
			{10_000, 10, 321, 1000}, {10_000, 10, 999, 1000}, {10_000, 10, 9990, 1}, {10_000, 1, 2815, 1},
		} {
			t.Run(fmt.Sprint(table.name, test), func(t *testing.T) {
				fl.t = t
				counted := func() (n int64) {
					for _, kind := range []string{"insert", "update", "delete"} {
						n += my.Status("Com_" + kind)
					}
					return n
				}
				fl.mysql.Exec(fl.db, "DELETE FROM accounts WHERE id < 1000000")
				before, sweeps := counted(), p.Snapshot().Sweeps
				var bad []string
				for i := range test.bad {
					bad = append(bad, fmt.Sprint("account:", test.first+i*test.step))
				}
				fl.writeAll(test.n, func(id int) (string, string) {
					if i := (id - test.first) / test.step; id >= test.first && i < test.bad && id == test.first+i*test.step {
						return account(id, table.balance)
					}
					return account(id, id)
				})
				fl.drained(p)
				extra := counted() - before - int64(test.n/table.perInsert)
				most := float64(test.bad) * (2*math.Log2(float64(test.n)) + 2)
				t.Logf("%d statements more, %.0f at most", extra, most)
				if float64(extra) > most {
					t.Error("that is too many")
				}
				if n := p.Snapshot().Sweeps - sweeps; n > 2 {
					t.Errorf("it took %d rounds", n)
				}
				fl.want("SELECT COUNT(*) - 1 FROM accounts", strconv.Itoa(test.n-test.bad))
				if got := fl.entries(); len(got) != len(bad) {
					t.Errorf("%d rows are parked", len(got))
				}
				if n, err := p.journal.Drop(t.Context(), bad...); n != len(bad) || err != nil {
					t.Errorf("%d of %q were parked: %v", n, bad, err)
				}
			})
		}
		p.stop()
	}
}
