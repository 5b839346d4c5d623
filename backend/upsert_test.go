package backend

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// writeAll marks many keys at once, the oldest first.
func (fl *flushing) writeAll(n int, image func(id int) (key, image string)) {
	fl.t.Helper()
	ctx := context.Background()
	fl.exec(func(pipe redis.Pipeliner) {
		for id := range n {
			key, image := image(id)
			pipe.Set(ctx, key, image, 0)
			pipe.ZAddNX(ctx, fl.dirty(key), redis.Z{Score: float64(id + 1), Member: "+" + key})
		}
	})
}

// One bad row among a thousand is found by halving, and keeps none of the others from landing.
func TestUpsertParksTheBadRow(t *testing.T) {
	for _, bad := range [][]int{{0}, {777}, {999}, {499, 500}, {3, 300, 301, 302, 998}} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			t.Parallel()
			const n = 1000
			fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.Partitions, c.Batch = 1, n }})
			balances := make(map[int]int)
			parked := make(map[string]string)
			for _, id := range bad {
				balances[id] = -1
				parked["account:"+strconv.Itoa(id)] = `"code":4025,"error":"CONSTRAINT`
			}
			fl.writeAll(n, func(id int) (string, string) { return account(id, balances[id]) })
			p := fl.start()
			fl.drained(p)
			fl.want("SELECT COUNT(*) FROM accounts", strconv.Itoa(n-len(bad)))
			fl.parked(parked)
			for key := range parked {
				if ttl := fl.rdb.PTTL(t.Context(), key).Val(); ttl != -1 {
					t.Errorf("%s has a TTL of %v", key, ttl)
				}
			}
			s := p.Snapshot()
			most := n/maxInserts + len(bad)*(2*int(math.Ceil(math.Log2(n)))+2)
			if int(s.Upserts) > most || s.Batches != 1 {
				t.Errorf("%d statements in %d batches, at most %d", s.Upserts, s.Batches, most)
			}
		})
	}
}

// names is a table where a plain upsert could hit the wrong row: other spellings and another unique index.
const names = `CREATE TABLE names (name VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci PRIMARY KEY,
	email VARCHAR(20) UNIQUE, n INT NOT NULL DEFAULT 7)`

func newNames(t *testing.T) *flushing {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "name", "name:{name}", "names"
	return newFlushing(t, flushSetup{tables: names, mappings: []mapping.Config{c},
		journal: func(c *JournalConfig) { c.Partitions = 1 }})
}

func named(name, email string, n int) (key, image string) {
	return "name:" + name, fmt.Sprintf(`{"name":%q,"email":%q,"n":%d}`, name, email, n)
}

func (fl *flushing) name(name, email string, n int) {
	fl.t.Helper()
	key, image := named(name, email, n)
	fl.write(key, image, -1)
}

const allNames = "SELECT GROUP_CONCAT(name, '/', email, '/', n ORDER BY email) FROM names"

func TestUpsertNeverHitsAnAlias(t *testing.T) {
	fl := newNames(t)
	fl.mysql.Exec(fl.db, "INSERT INTO names VALUES ('Bob', 'a', 1), ('Ünal', 'b', 2)")
	fl.name("Bob", "a", 1) // unchanged
	fl.name("Ünal", "b", 20)
	fl.name("bob", "c", 3)
	fl.name("ünal", "d", 4)
	fl.name("BOBBY", "e", 5)
	p := fl.start()
	fl.drained(p)
	fl.want(allNames, "Bob/a/1,Ünal/b/20,BOBBY/e/5")
	fl.parked(map[string]string{"name:bob": `"code":1062,"error":"Duplicate entry`, "name:ünal": `"code":1062`})

	fl.remove("name:bobby") // there is only BOBBY
	fl.remove("name:Ünal")
	fl.remove("name:BOB")
	fl.drained(p)
	fl.want(allNames, "Bob/a/1,BOBBY/e/5")
}

// Values of a unique index that move from row to row.
func TestUpsertUniqueValueMoves(t *testing.T) {
	fl := newNames(t)
	fl.mysql.Exec(fl.db, "INSERT INTO names VALUES ('a', '1', 0), ('b', '2', 0), ('c', '3', 0), ('d', '4', 0)")
	fl.name("a", "2", 1) // of b
	fl.name("b", "3", 1) // of c
	fl.name("c", "4", 1) // of d
	fl.remove("name:d")
	p := fl.start()
	fl.drained(p)
	fl.want(allNames, "a/2/1,b/3/1,c/4/1")
	fl.parked(nil)

	fl.name("a", "3", 2) // of b, which keeps it
	fl.name("e", "5", 2)
	fl.drained(p)
	fl.want(allNames, "a/2/1,b/3/1,c/4/1,e/5/2")
	fl.parked(map[string]string{"name:a": `"code":1062`})
}

func TestUpsertKeepsDefaults(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "note", "note:{id}", "notes"
	other := c
	other.Name, other.Key, other.Table = "label", "label:{id}:{lang}", "labels"
	pair := c
	pair.Name, pair.Key, pair.Table = "pair", "pair:{a}:{b}", "pairs"
	fl := newFlushing(t, flushSetup{
		tables: `CREATE TABLE notes (id BINARY(2) PRIMARY KEY, at DATETIME NOT NULL DEFAULT (NOW() + INTERVAL 1 DAY), n INT);
			CREATE TABLE labels (id INT, lang CHAR(2), at DATETIME DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (id, lang));
			CREATE TABLE pairs (a INT, b VARBINARY(3), PRIMARY KEY (a, b))`,
		mappings: []mapping.Config{c, other, pair},
	})
	for round := range 2 { // inserted, then updated
		fl.write("note:aa", fmt.Sprintf(`{"id":"YWE=","n":%d}`, round), -1)
		fl.write("note:bb", `{"id":"YmI=","at":"2020-01-02 03:04:05","n":null}`, -1)
		fl.write("label:1:de", `{"id":1,"lang":"de"}`, -1)
		fl.write("pair:1:xyz", `{"a":1,"b":"eHl6"}`, -1)
		p := fl.start()
		fl.drained(p)
		p.stop()
		fl.parked(nil)
		fl.want("SELECT GROUP_CONCAT(n, '/', at > NOW() + INTERVAL 23 HOUR) FROM notes WHERE id = 'aa'", fmt.Sprint(round)+"/1")
		fl.want("SELECT at FROM notes WHERE id = 'bb'", "2020-01-02 03:04:05")
		fl.want("SELECT COUNT(*) FROM labels WHERE at > NOW() - INTERVAL 1 HOUR", "1")
		fl.want("SELECT COUNT(*) FROM pairs WHERE b = 'xyz'", "1")
	}
	fl.remove("note:bb")
	fl.remove("label:1:de")
	fl.remove("label:1:DE")
	fl.remove("pair:1:xyz")
	fl.remove("pair:2:xyz")
	fl.drained(fl.start())
	fl.want("SELECT (SELECT COUNT(*) FROM notes) + (SELECT COUNT(*) FROM labels) + (SELECT COUNT(*) FROM pairs)", "1")
}

// families are parents and children, the children's mapping first.
func newFamilies(t *testing.T, partitions int) *flushing {
	child := mapping.Default()
	child.Name, child.Key, child.Table, child.Delete = "child", "child:{id}", "children", "row"
	parent := child
	parent.Name, parent.Key, parent.Table = "parent", "parent:{id}", "parents"
	return newFlushing(t, flushSetup{
		tables: `CREATE TABLE parents (id INT PRIMARY KEY);
			CREATE TABLE children (id INT PRIMARY KEY, parent INT NOT NULL REFERENCES parents (id))`,
		mappings: []mapping.Config{child, parent},
		journal:  func(c *JournalConfig) { c.Partitions = partitions },
	})
}

func TestUpsertParentsFirst(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(strconv.Itoa(partitions), func(t *testing.T) {
			t.Parallel()
			fl := newFamilies(t, partitions)
			const n = 300
			fl.writeAll(n, func(id int) (string, string) {
				return fmt.Sprint("child:", id), fmt.Sprintf(`{"id":%d,"parent":%d}`, id, id%7)
			})
			fl.writeAll(7, func(id int) (string, string) {
				return fmt.Sprint("parent:", id), fmt.Sprintf(`{"id":%d}`, id)
			})
			p := fl.start()
			fl.drained(p)
			fl.want("SELECT COUNT(*) FROM children", strconv.Itoa(n))
			fl.parked(nil)
			if s := p.Snapshot(); partitions == 1 && s.Batches == 1 && s.Deferred != 0 {
				t.Errorf("in one batch, and yet %+v", s)
			}
			for id := range 7 {
				fl.remove(fmt.Sprint("parent:", id))
			}
			for id := range n {
				fl.remove(fmt.Sprint("child:", id))
			}
			fl.drained(p)
			fl.want("SELECT (SELECT COUNT(*) FROM parents) + (SELECT COUNT(*) FROM children)", "0")
			fl.parked(nil)
		})
	}
}

// A parent that does not come is not waited for for ever, nor does the child hold up the others.
func TestUpsertParentMissing(t *testing.T) {
	fl := newFamilies(t, 1)
	fl.mysql.Exec(fl.db, "INSERT INTO parents VALUES (1); INSERT INTO children VALUES (1, 1)")
	fl.write("child:2", `{"id":2,"parent":2}`, -1)
	fl.write("child:3", `{"id":3,"parent":1}`, -1)
	fl.remove("parent:1")
	p := fl.start(func(f *Flusher) { f.patience = time.Hour })
	harness.Until(t, "child 3 is there", func() bool {
		return fl.mysql.Text(fl.db, "SELECT COUNT(*) FROM children WHERE id = 3") == "1"
	})
	harness.Until(t, "the others are tried again", func() bool { return p.Snapshot().Deferred > 4 })
	fl.parked(nil)
	fl.write("parent:2", `{"id":2}`, -1)
	harness.Until(t, "child 2 is there", func() bool {
		return fl.mysql.Text(fl.db, "SELECT COUNT(*) FROM children WHERE id = 2") == "1"
	})
	p.stop()
	fl.write("child:4", `{"id":4,"parent":4}`, -1)
	fl.drained(fl.start(func(f *Flusher) { f.patience = 0 }))
	fl.parked(map[string]string{
		"child:4":  "{\"mark\":\"+\",\"table\":\"`children`\",\"code\":1452,",
		"parent:1": "{\"mark\":\"-\",\"table\":\"`parents`\",\"code\":1451,",
	})
}

// A row that somebody has locked waits; it holds up no other and is never parked.
func TestUpsertRowLocked(t *testing.T) {
	fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.Partitions, c.Batch = 1, 4 }})
	fl.mysql.Exec(fl.db, "INSERT INTO accounts VALUES (3, 0)")
	tx, err := fl.mysql.DB(fl.db).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("UPDATE accounts SET balance = 1 WHERE id = 3"); err != nil {
		t.Fatal(err)
	}
	fl.writeAll(20, func(id int) (string, string) { return account(id, 5) })
	p := fl.start()
	harness.Until(t, "all others are written", func() bool {
		return fl.mysql.Text(fl.db, "SELECT COUNT(*) FROM accounts WHERE balance = 5") == "19"
	})
	fl.parked(nil)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	fl.drained(p)
	fl.want("SELECT COUNT(*) FROM accounts WHERE balance = 5", "20")
	fl.parked(nil)
}

// A table that is locked as a whole costs the others a few waits, not one for each of its rows.
func TestUpsertTableLocked(t *testing.T) {
	other := accountsMapping()
	other.Name, other.Key, other.Table = "other", "other:{id}", "others"
	fl := newAccounts(t, flushSetup{
		tables:   "CREATE TABLE others LIKE accounts",
		mappings: []mapping.Config{other},
		journal:  func(c *JournalConfig) { c.Partitions, c.Batch = 1, 4 },
	})
	p := fl.start()
	conn, err := fl.mysql.DB(fl.db).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "LOCK TABLES others WRITE"); err != nil {
		t.Fatal(err)
	}
	const n = 20
	fl.writeAll(n, func(id int) (string, string) {
		_, image := account(id, 1)
		return fmt.Sprint("other:", id), image
	})
	fl.writeAll(n, func(id int) (string, string) { return account(id, 1) })
	harness.Until(t, "the others are written", func() bool {
		return fl.mysql.Text(fl.db, "SELECT COUNT(*) FROM accounts") == strconv.Itoa(n)
	})
	if _, err := conn.ExecContext(t.Context(), "UNLOCK TABLES"); err != nil {
		t.Fatal(err)
	}
	fl.drained(p)
	fl.want("SELECT COUNT(*) FROM others", strconv.Itoa(n))
	fl.parked(nil)
}

func TestUpsertDeadlock(t *testing.T) {
	fl := newAccounts(t, flushSetup{tables: "CREATE TABLE weight (id INT PRIMARY KEY AUTO_INCREMENT)",
		journal: func(c *JournalConfig) { c.Partitions = 1 }})
	fl.mysql.Exec(fl.db, "INSERT INTO accounts VALUES (1, 0), (2, 0)")
	tx, err := fl.mysql.DB(fl.db).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	// InnoDB gives up the transaction that changed less.
	for _, query := range []string{
		"INSERT INTO weight VALUES " + strings.Repeat("(NULL),", 999) + "(NULL)",
		"UPDATE accounts SET balance = 1 WHERE id = 2",
	} {
		if _, err := tx.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	fl.account(1, 5)
	fl.account(2, 5)
	p := fl.start()
	harness.Until(t, "the flush waits for row 2", func() bool {
		return fl.mysql.Status("Innodb_row_lock_current_waits") > 0
	})
	if _, err := tx.Exec("UPDATE accounts SET balance = 2 WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(balance) FROM accounts", "5,5")
	fl.parked(nil)
	if p.Snapshot().Retries == 0 {
		t.Error("nothing was tried again")
	}
}

// A table that is not what it was pauses its mapping and no other.
func TestUpsertTableChanged(t *testing.T) {
	for _, test := range []struct{ what, change, back string }{
		{"column", "ALTER TABLE things CHANGE n m INT", "ALTER TABLE things CHANGE m n INT"},
		{"table", "RENAME TABLE things TO others", "RENAME TABLE others TO things"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			c := mapping.Default()
			c.Name, c.Key, c.Table = "thing", "thing:{id}", "things"
			fl := newAccounts(t, flushSetup{
				tables:   "CREATE TABLE things (id INT PRIMARY KEY, n INT)",
				mappings: []mapping.Config{c},
				journal:  func(c *JournalConfig) { c.Partitions = 1 },
			})
			fl.mysql.Exec(fl.db, test.change)
			fl.writeAll(10, func(id int) (string, string) {
				return fmt.Sprint("thing:", id), fmt.Sprintf(`{"id":%d,"n":1}`, id)
			})
			fl.writeAll(10, func(id int) (string, string) { return account(id, 1) })
			p := fl.start()
			harness.Until(t, "the others are written", func() bool {
				return fl.mysql.Text(fl.db, "SELECT COUNT(*) FROM accounts") == "10"
			})
			harness.Until(t, "the marks go round", func() bool { return p.Snapshot().Deferred > 30 })
			if s := p.Snapshot(); s.Pending != 10 || s.NewlyParked != 0 {
				t.Errorf("snapshot %+v", s)
			}
			fl.mysql.Exec(fl.db, test.back)
			fl.drained(p)
			fl.want("SELECT COUNT(*) FROM things", "10")
			fl.parked(nil)
		})
	}
}

// What no statement can carry is parked and does not cost the session.
func TestUpsertPacketTooLarge(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "blob", "blob:{id}", "blobs"
	fl := newFlushing(t, flushSetup{
		mysql:    harness.StartMySQL(t, "--max-allowed-packet=1M"),
		tables:   "CREATE TABLE blobs (id INT PRIMARY KEY, v LONGTEXT)",
		mappings: []mapping.Config{c},
		journal:  func(c *JournalConfig) { c.Partitions = 1 },
	})
	sizes := []int{10, 300 << 10, 600 << 10, 900 << 10, 2 << 20, 400 << 10, 500 << 10}
	fl.writeAll(len(sizes), func(id int) (string, string) {
		return fmt.Sprint("blob:", id), fmt.Sprintf(`{"id":%d,"v":"%s"}`, id, strings.Repeat("'", sizes[id]))
	})
	p := fl.start()
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(id ORDER BY id) FROM blobs WHERE LENGTH(v) > 0", "0,1,2,3,5,6")
	fl.parked(map[string]string{"blob:4": `column \"v\": 2097152 bytes`})
	if s := p.Snapshot(); s.Retries != 0 {
		t.Errorf("snapshot %+v", s)
	}
}

func TestRanks(t *testing.T) {
	parents := map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "x": {"y"}, "y": {"x"}, "s": {"s"}}
	got := ranks([]string{"a", "b", "x", "c", "y", "d", "s"}, func(t string) string { return t }, parents)
	for child, ps := range parents {
		for _, p := range ps {
			if child != p && child != "x" && child != "y" && got[p] >= got[child] {
				t.Errorf("%s is %d, its parent %s is %d", child, got[child], p, got[p])
			}
		}
	}
	if len(got) != 7 {
		t.Error(got)
	}
}

// newNodes is a table that refers to itself, and two that refer to each other.
func newNodes(t *testing.T, partitions int) *flushing {
	var configs []mapping.Config
	for _, name := range []string{"node", "team", "player"} {
		c := mapping.Default()
		c.Name, c.Key, c.Table = name, name+":{id}", name+"s"
		configs = append(configs, c)
	}
	return newFlushing(t, flushSetup{
		tables: `CREATE TABLE nodes (id INT PRIMARY KEY, parent INT, n INT, FOREIGN KEY (parent) REFERENCES nodes (id),
				CHECK (parent IS NOT NULL OR id < 2));
			CREATE TABLE teams (id INT PRIMARY KEY, captain INT);
			CREATE TABLE players (id INT PRIMARY KEY, team INT NOT NULL, email VARCHAR(20) UNIQUE,
				FOREIGN KEY (team) REFERENCES teams (id));
			ALTER TABLE teams ADD FOREIGN KEY (captain) REFERENCES players (id)`,
		mappings: configs,
		journal:  func(c *JournalConfig) { c.Partitions = partitions },
	})
}

// Rows of a table that refers to itself land in whatever order they come, and are deleted so.
func TestUpsertSelfReference(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(strconv.Itoa(partitions), func(t *testing.T) {
			t.Parallel()
			fl := newNodes(t, partitions)
			fl.mysql.Exec(fl.db, "ALTER TABLE nodes DROP CONSTRAINT CONSTRAINT_1")
			const n = 200 // every node refers to one with a higher number
			chain := func(n0 int) func(id int) (string, string) {
				return func(id int) (string, string) {
					parent := "null"
					if id < n-1 {
						parent = strconv.Itoa(n - 1 - (n-2-id)/2)
					}
					return fmt.Sprint("node:", id), fmt.Sprintf(`{"id":%d,"parent":%s,"n":%d}`, id, parent, n0)
				}
			}
			fl.writeAll(n, chain(1))
			p := fl.start()
			fl.drained(p)
			fl.want("SELECT CONCAT(COUNT(*), ' ', COUNT(parent), ' ', SUM(n)) FROM nodes", "200 199 200")
			fl.parked(nil)
			if s := p.Snapshot(); partitions == 1 && s.Deferred != 0 {
				t.Errorf("in one partition, and yet %+v", s)
			}
			fl.writeAll(n, chain(2))
			fl.drained(p)
			fl.want("SELECT SUM(n) FROM nodes", "400")
			for id := range n {
				fl.remove(fmt.Sprint("node:", n-1-id))
			}
			fl.drained(p)
			fl.want("SELECT COUNT(*) FROM nodes", "0")
			fl.parked(nil)
		})
	}
}

// Rows that refer to each other in a circle land together, whoever of them comes first, and the one among them whose
// parent is missing does not.
func TestUpsertCircle(t *testing.T) {
	fl := newNodes(t, 1)
	for id := range 20 {
		fl.write(fmt.Sprint("team:", id), fmt.Sprintf(`{"id":%d,"captain":%d}`, id, id), -1)
		fl.write(fmt.Sprint("player:", id), fmt.Sprintf(`{"id":%d,"team":%d,"email":"%d"}`, id, id, id), -1)
	}
	fl.write("node:0", `{"id":0,"parent":1,"n":1}`, -1)
	fl.write("node:1", `{"id":1,"parent":0,"n":1}`, -1)
	p := fl.start(func(f *Flusher) { f.patience = 0 })
	fl.drained(p)
	fl.want("SELECT CONCAT(COUNT(*), ' ', SUM(captain)) FROM teams", "20 190")
	fl.want("SELECT CONCAT(COUNT(*), ' ', SUM(parent)) FROM nodes", "2 1")
	fl.parked(nil)

	// A row that the table does not take without its parent is written as it is.
	p.stop()
	fl.write("node:5", `{"id":5,"parent":0,"n":5}`, -1)
	fl.write("node:6", `{"id":6,"parent":66,"n":6}`, -1)
	p = fl.start(func(f *Flusher) { f.patience = 0 })
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(id ORDER BY id) FROM nodes", "0,1,5")
	fl.parked(map[string]string{"node:6": `"code":1452`})

	p.stop()
	for id := range 20 {
		fl.remove(fmt.Sprint("team:", id))
		fl.remove(fmt.Sprint("player:", id))
	}
	fl.drained(fl.start(func(f *Flusher) { f.patience = 0 }))
	fl.want("SELECT (SELECT COUNT(*) FROM teams) + (SELECT COUNT(*) FROM players)", "0")
	fl.parked(map[string]string{"node:6": `"code":1452`})
}

// Many bad rows cost statements in proportion to them and the logarithm of the batch, and keep nothing else waiting: the
// others land within two rounds.
func TestUpsertManyBadRows(t *testing.T) {
	const n = 10_000
	for _, test := range []struct {
		name string
		bad  func(id int) bool
		rows int
	}{
		{"ten in ten thousand", func(id int) bool { return id%1000 == 321 }, 10},
		{"a row of bad ones", func(id int) bool { return id >= 5000 && id < 5010 }, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.Partitions = 1 }})
			fl.writeAll(n, func(id int) (string, string) {
				if test.bad(id) {
					return account(id, -1)
				}
				return account(id, id)
			})
			p := fl.start()
			fl.drained(p)
			fl.want("SELECT COUNT(*) FROM accounts", strconv.Itoa(n-test.rows))
			if got := len(fl.entries()); got != test.rows {
				t.Errorf("%d rows are parked", got)
			}
			s := p.Snapshot()
			most := int(s.Batches) + n/maxInserts + test.rows*(2*int(math.Ceil(math.Log2(n)))+2)
			if int(s.Upserts) > most || s.Sweeps > 2 {
				t.Errorf("%d statements in %d batches of %d sweeps, at most %d", s.Upserts, s.Batches, s.Sweeps, most)
			}
		})
	}
}

// A table all of whose rows are bad keeps no other table from being written.
func TestUpsertBadTable(t *testing.T) {
	fl := newNodes(t, 1)
	fl.mysql.Exec(fl.db, "INSERT INTO teams VALUES (1, NULL)")
	const n = 500
	fl.writeAll(n, func(id int) (string, string) { // no team 7
		return fmt.Sprint("player:", id), fmt.Sprintf(`{"id":%d,"team":7,"email":"%d"}`, id, id)
	})
	fl.writeAll(n, func(id int) (string, string) {
		return fmt.Sprint("node:", id), fmt.Sprintf(`{"id":%d,"parent":%d,"n":1}`, id, id)
	})
	p := fl.start()
	harness.Until(t, "the other table is written", func() bool {
		return fl.mysql.Text(fl.db, "SELECT COUNT(*) FROM nodes") == strconv.Itoa(n)
	})
	if s := p.Snapshot(); s.Sweeps > 2 {
		t.Errorf("that took %d sweeps", s.Sweeps)
	}
	p.stop()
	p = fl.start(func(f *Flusher) { f.patience = 0 })
	fl.drained(p)
	if got := len(fl.entries()); got != n {
		t.Errorf("%d rows are parked", got)
	}
	fl.mysql.Exec(fl.db, "INSERT INTO teams VALUES (7, NULL)")
	if got, err := p.journal.Retry(t.Context()); got != n || err != nil {
		t.Errorf("%d are tried again: %v", got, err)
	}
	fl.drained(p)
	fl.want("SELECT COUNT(*) FROM players", strconv.Itoa(n))
	fl.parked(nil)
}
