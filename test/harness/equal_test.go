package harness

import (
	"fmt"
	"strings"
	"testing"
)

// recorder is the testing.TB of a check that is expected to fail.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func TestEqual(t *testing.T) {
	r, m := StartRedis(t), SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, `CREATE TABLE users (
			id INT UNSIGNED ZEROFILL PRIMARY KEY, name VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci,
			amount DECIMAL(10,2), f FLOAT, d DOUBLE, bits BIT(12), raw VARBINARY(8), doc JSON, at DATETIME(3),
			up VARCHAR(20) AS (UPPER(name)) STORED);
		INSERT users (id, name, amount, f, d, bits, raw, doc, at) VALUES
			(7, 'Bob "B"', -0.50, 16777217, 1e300, 5, X'00ff', '{"a": [1]}', '2026-01-02 03:04:05.678'),
			(8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`)
	rows := Rows{Pattern: "user:{id}", Table: "users", Fields: map[string]string{"amount": "sum"}}
	good := `{"id":7,"name":"Bob \"B\"","sum":-0.50,"f":16777216,"d":1e300,"bits":5,"raw":"AP8=","doc":{"a": [1]},"at":"2026-01-02 03:04:05.678"}`
	null := `{"id":8,"name":null,"sum":null,"f":null,"d":null,"bits":null,"raw":null,"doc":null,"at":null}`

	for _, c := range []struct{ name, key, image, finding string }{
		{"same", "user:7", good, ""},
		{"null", "user:8", null, ""},
		{"no row", "user:9", good, "0 rows have this very key"},
		{"alias", "user:07", good, "0 rows have this very key"},
		{"other number", "user:7", strings.Replace(good, "-0.50", "-0.5", 1), `column "amount"`},
		{"other float", "user:7", strings.Replace(good, "16777216", "16777218", 1), `column "f"`},
		{"other text", "user:7", strings.Replace(good, "Bob", "bob", 1), `column "name"`},
		{"other bytes", "user:7", strings.Replace(good, "AP8=", "AP4=", 1), `column "raw"`},
		{"other document", "user:7", strings.Replace(good, "[1]", "[2]", 1), `column "doc"`},
		{"other bits", "user:7", strings.Replace(good, `"bits":5`, `"bits":4`, 1), `column "bits"`},
		{"number as text", "user:7", strings.Replace(good, "-0.50", `"-0.50"`, 1), `column "amount"`},
		{"null for empty", "user:8", strings.Replace(null, `"name":null`, `"name":""`, 1), `column "name"`},
		{"missing", "user:7", strings.Replace(good, `"bits":5,`, "", 1), `no field "bits"`},
		{"too many", "user:7", strings.Replace(good, "{", `{"x":1,`, 1), `field "x"`},
		{"twice", "user:7", strings.Replace(good, "{", `{"id":7,`, 1), `"id" twice`},
		{"no object", "user:7", "7", "not a JSON object"},
		{"two objects", "user:7", good + "{}", "goes on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.Do("FLUSHALL")
			r.Do("SET", c.key, c.image)
			r.Do("SET", "users:1", "no image")
			seen := &recorder{TB: t}
			if n := Equal(seen, r.Client(), m.DB(db), rows); n != 1 {
				t.Errorf("%d images instead of one", n)
			}
			switch got := strings.Join(seen.said, "\n"); {
			case c.finding == "" && got != "":
				t.Errorf("unexpected finding: %s", got)
			case !strings.Contains(got, c.finding):
				t.Errorf("finding %q does not contain %q", got, c.finding)
			}
		})
	}
}

func TestEqualFindsAliases(t *testing.T) {
	r, m := StartRedis(t), SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE seats (flight VARCHAR(9) COLLATE utf8mb4_general_ci, seat INT, PRIMARY KEY (flight, seat));"+
		"INSERT seats VALUES ('AB:1', 5)")
	rows := Rows{Pattern: "seat:{flight}:{seat}", Table: db + ".seats"}
	r.Do("SET", "seat:AB:1:5", `{"flight":"AB:1","seat":5}`)
	if n := Equal(t, r.Client(), m.DB(""), rows); n != 1 {
		t.Errorf("%d images instead of one", n)
	}
	r.Do("SET", "seat:ab:1:5", `{"flight":"ab:1","seat":5}`)
	seen := &recorder{TB: t}
	Equal(seen, r.Client(), m.DB(""), rows)
	if len(seen.said) != 1 || !strings.Contains(seen.said[0], "seat:ab:1:5") {
		t.Errorf("the alias was not found: %q", seen.said)
	}
}

func TestSettled(t *testing.T) {
	r := StartRedis(t)
	r.Do("ZADD", "keyrow:{3}:flushing", 1, "+user:1")
	r.Do("ZADD", "other:{3}:dirty", 1, "+user:1")
	left, err := pending(t.Context(), r.Client(), "keyrow")
	if err != nil || len(left) != 1 || !strings.Contains(left[0], "+user:1") {
		t.Errorf("pending: %q, %v", left, err)
	}
	gone := make(chan struct{})
	go func() { Settled(t, r.Client(), "keyrow"); close(gone) }()
	r.Do("DEL", "keyrow:{3}:flushing")
	<-gone

	r.Do("HSET", "keyrow:{0}:parked", "user:1", "why")
	Settled(t, r.Client(), "keyrow", "user:1")
	seen := &recorder{TB: t}
	Settled(seen, r.Client(), "keyrow", "user:2")
	if got := strings.Join(seen.said, "; "); got != "user:2 is not parked; user:1 is parked: why" {
		t.Errorf("findings: %s", got)
	}
}

func TestEqualKinds(t *testing.T) {
	r, m := StartRedis(t), SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE users (id INT UNSIGNED ZEROFILL PRIMARY KEY, name VARCHAR(20), f FLOAT, raw BLOB);"+
		"INSERT users VALUES (7, 'é', 0.1, x'00ff'), (8, NULL, NULL, '')")
	hash := Rows{Pattern: "user:{id}", Table: "users", Value: "hash", Fields: map[string]string{"name": "n"}}
	single := Rows{Pattern: "user:{id}", Table: "users", Value: "string", Column: "name"}
	for _, c := range []struct {
		rows    Rows
		command []any
		finding string
	}{
		{hash, []any{"HSET", "user:7", "id", 7, "n", "é", "f", "0.1", "raw", "\x00\xff"}, ""},
		{hash, []any{"HSET", "user:8", "id", 8, "raw", ""}, ""},
		{hash, []any{"HSET", "user:8", "id", 8, "raw", "", "n", ""}, `column "name"`},
		{hash, []any{"HSET", "user:7", "id", 7, "f", "0.1", "raw", "\x00\xff"}, `column "name"`},
		{hash, []any{"HSET", "user:7", "id", 7, "n", "e", "f", "0.1", "raw", "\x00\xff"}, `column "name"`},
		{hash, []any{"HSET", "user:7", "id", "07", "n", "é", "f", "0.1", "raw", "\x00\xff"}, `column "id"`},
		{hash, []any{"HSET", "user:7", "id", 7, "n", "é", "f", "0.2", "raw", "\x00\xff"}, `column "f"`},
		{hash, []any{"HSET", "user:8", "id", 8, "raw", "", "x", ""}, `field "x"`},
		{hash, []any{"SET", "user:8", ""}, "WRONGTYPE"},
		{single, []any{"SET", "user:7", "é"}, ""},
		{single, []any{"SET", "user:7", "e"}, `column "name"`},
		{single, []any{"SET", "user:8", ""}, `column "name"`},
		{single, []any{"HSET", "user:8", "a", "b"}, "WRONGTYPE"},
	} {
		t.Run(fmt.Sprint(c.command), func(t *testing.T) {
			r.Do("FLUSHALL")
			r.Do(c.command...)
			seen := &recorder{TB: t}
			if n := Equal(seen, r.Client(), m.DB(db), c.rows); n != 1 {
				t.Errorf("%d images instead of one", n)
			}
			if got := strings.Join(seen.said, "\n"); !strings.Contains(got, c.finding) || c.finding == "" && got != "" {
				t.Errorf("finding %q, want %q", got, c.finding)
			}
		})
	}
}
