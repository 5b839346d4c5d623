package test

import (
	"fmt"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// kinTables and kinConfig have one table under four kinds of keys: two follow from the primary key, two do not.
const kinTables = `
CREATE TABLE people (
	id   BIGINT NOT NULL PRIMARY KEY,
	nick VARCHAR(20) COLLATE utf8mb4_bin NOT NULL UNIQUE,
	no   INT NOT NULL UNIQUE,
	age  INT NOT NULL DEFAULT 0
)`

const kinConfig = `
[[mapping]]
name = "person"
key = "person:{id}"
table = "people"
delete = "row"

[[mapping]]
name = "nick"
key = "nick:{nick}"
table = "people"

[[mapping]]
name = "card"
key = "card:{id}"
table = "people"
value = "hash"
write = "deny"

[[mapping]]
name = "age"
key = "age:{no}"
table = "people"
value = "string"
column = "age"
write = "deny"
`

var kinRows = []harness.Rows{
	{Pattern: "person:{id}", Table: "people"},
	{Pattern: "nick:{nick}", Table: "people"},
	{Pattern: "card:{id}", Table: "people", Value: "hash"},
	{Pattern: "age:{no}", Table: "people", Value: "string", Column: "age"},
}

func openKin(t *testing.T, o harness.Options) *shop {
	t.Helper()
	return openPeople(t, kinConfig, o)
}

// openPeople is openTables with two rows of kinTables.
func openPeople(t *testing.T, config string, o harness.Options) *shop {
	t.Helper()
	s := openTables(t, kinTables, config, o)
	s.sql("INSERT INTO people VALUES (1, 'a', 11, 40), (2, 'b', 12, 50)")
	return s
}

func (s *shop) restKin() {
	s.t.Helper()
	s.Settled()
	s.Equal(kinRows...)
	for p := range 4 {
		for _, kind := range []string{"stale", "expire"} {
			if got := s.Redis.Do("EXISTS", fmt.Sprintf("%s:{%d}:%s", s.prefix, p, kind)); got != int64(0) {
				s.t.Errorf("something is left in the %s of partition %d", kind, p)
			}
		}
	}
}

// What is written through one mapping is what the others show once it is flushed, under the keys that the row had and
// those that it has.
func TestKin(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			t.Parallel()
			s := openKin(t, harness.Options{})
			reader := s
			if processes == 2 {
				reader = s.second(nil)
			}
			reads := []string{"GET person:1", "GET person:3", "GET nick:a", "GET nick:z", "GET nick:b", "GET age:11", "GET age:19", "HGET card:1 nick", "HGET card:3 nick"}
			want := func(answers ...string) {
				t.Helper()
				for i, read := range reads {
					reader.want(answers[i], anys(strings.Fields(read))...)
				}
			}
			person := func(id int, nick string, no, age int) string {
				return fmt.Sprintf(`{"id":%d,"nick":"%s","no":%d,"age":%d}`, id, nick, no, age)
			}
			a, b := person(1, "a", 11, 40), person(2, "b", 12, 50)
			want(a, "nil", a, "nil", b, "40", "nil", "a", "nil")

			z := person(1, "z", 19, 41) // another nick and another number
			s.want("OK", "SET", "person:1", z)
			s.Settled()
			want(z, "nil", "nil", z, b, "nil", "41", "z", "nil")

			b2 := person(2, "b", 12, 51) // through the nick
			s.want("OK", "SET", "nick:b", b2)
			s.Settled()
			want(z, "nil", "nil", z, b2, "nil", "41", "z", "nil")
			reader.want(b2, "GET", "person:2")
			reader.want("51", "GET", "age:12")

			c := person(3, "a", 11, 42) // a new row has the nick that the other gave up
			s.want("OK", "SET", "person:3", c)
			s.Settled()
			want(z, c, c, z, b2, "42", "41", "z", "a")

			s.want("1", "DEL", "person:1")
			s.Settled()
			want("nil", c, c, "nil", b2, "42", "nil", "nil", "a")
			s.restKin()
		})
	}
}

// A row that was read under one key before it was written through another does not get into Redis after that.
func TestKinLateFill(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ read, write, answer string }{
		{"GET nick:a", `SET person:1 {"nick":"z","no":19}`, "$-1\r\n"},
		{"GET nick:z", `SET person:1 {"nick":"z","no":19}`, bulk(`{"id":1,"nick":"z","no":19,"age":0}`)},
		{"HGET card:1 age", `SET person:1 {"nick":"a","no":11,"age":7}`, "$1\r\n7\r\n"},
		{"GET person:1", `SET nick:a {"id":1,"no":11,"age":7}`, bulk(`{"id":1,"nick":"a","no":11,"age":7}`)},
		{"GET age:11", `DEL person:1`, "$-1\r\n"},
	} {
		t.Run(test.read+" "+test.write, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "load.selected")
			s := openKin(t, harness.Options{Hooks: hooks})
			writer := s.second(nil)
			writer.want(`{"id":1,"nick":"a","no":11,"age":40}`, "GET", "person:1")
			if strings.HasPrefix(test.read, "GET person") {
				s.Redis.Do("DEL", "person:1")
			}
			p := dial(t, s.Addr)
			p.send(encode(strings.Fields(test.read)...))
			held := hooks.Wait("load.selected")
			if got := writer.show(anys(strings.Fields(test.write))...); got[0] == '-' {
				t.Fatal(got)
			}
			s.Settled()
			hooks.ReleaseAll()
			held.Release()
			if got := p.reply(); got != test.answer {
				t.Errorf("the reader gets %q, want %q", got, test.answer)
			}
			s.restKin()
		})
	}
}

// Whoever dies on the way, nobody sees for good what the row was before.
func TestKinCrash(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"flush.read", "flush.before-commit", "flush.committed", "flush.settled"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, point)
			s := openKin(t, harness.Options{Hooks: hooks, Set: map[string]string{"journal.session_timeout": "2s"}})
			reader := s.second(nil)
			for _, key := range []string{"nick:a", "age:11", "nick:z", "person:1"} {
				reader.show("GET", key)
			}
			reader.Kill()
			s.owns()
			s.want("OK", "SET", "person:1", `{"nick":"z","no":19,"age":41}`)
			hooks.Wait(point)
			// What the reader may have read meanwhile is as old as what it read before.
			s.Kill()
			hooks.ReleaseAll()
			reader.Start()
			reader.restKin()
			reader.want("nil", "GET", "nick:a")
			reader.want("nil", "GET", "age:11")
			reader.want(`{"id":1,"nick":"z","no":19,"age":41}`, "GET", "nick:z")
			reader.restKin()
		})
	}
}

// Of two writes to one row through two mappings before the flush one wins as a whole, and all keys show which.
func TestKinBothWritten(t *testing.T) {
	t.Parallel()
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "flush.read")
			s := openKin(t, harness.Options{Hooks: hooks, Set: map[string]string{"journal.partitions": fmt.Sprint(1 + round)}})
			s.want("OK", "SET", "nick:b", `{"id":2,"no":12,"age":99}`)
			hooks.Wait("flush.read") // of the partition of nick:b
			s.want("OK", "SET", "person:1", `{"nick":"a","no":11,"age":1}`)
			s.want("OK", "SET", "nick:a", `{"id":1,"no":11,"age":2}`, "EX", 500)
			s.want("OK", "SET", "person:2", `{"nick":"b","no":12,"age":3}`)
			hooks.ReleaseAll()
			s.restKin()
			for _, id := range []int{1, 2} {
				age, key := s.row("SELECT age FROM people WHERE id = ?", id), []string{"nick:a", "nick:b"}[id-1]
				s.want(s.show("GET", fmt.Sprint("person:", id)), "GET", key)
				s.want(age, "HGET", fmt.Sprint("card:", id), "age")
				s.want(age, "GET", fmt.Sprint("age:1", id))
			}
			s.restKin()
		})
	}
}
