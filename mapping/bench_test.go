package mapping

import (
	"fmt"
	"testing"
)

var keysOfAll = map[string][]byte{
	"unmapped": []byte("session:8f14e45fceea167a5a36dedd4bea2543"),
	"near":     []byte("shop:customers:basket"),
	"mapped":   []byte("shop:orders7:42:1234567"),
}

// shopSet has 50 mappings, whose patterns share a prefix.
func shopSet(t testing.TB) *Set {
	schema := users(notNull(typed("a", "int(11)")), notNull(typed("b", "int(11)")))
	var cs []Config
	for i := range 50 {
		c := Default()
		c.Name, c.Key, c.Table = fmt.Sprint(i), fmt.Sprintf("shop:orders%d:{a}:{b}", i), "users"
		cs = append(cs, c)
	}
	set, findings := NewSet(cs, nil, schema)
	if set == nil {
		t.Fatal(findings)
	}
	return set
}

func BenchmarkMatch(b *testing.B) {
	set := shopSet(b)
	for name, key := range keysOfAll {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Match(key)
			}
		})
	}
}

// A benchRow is what a client SETs a key to.
type benchRow struct {
	name       string
	m          *Mapping
	key, value []byte
}

// benchRows are a short row, whose key column is left out as most clients do, and one of 20 columns with escapes, other
// scripts than Latin, and values that are not in their one form.
func benchRows(t testing.TB) []benchRow {
	people := compiled(t, primary(users(
		notNull(typed("id", "bigint(20)")), notNull(typed("name", "varchar(100)")), typed("email", "varchar(100)"),
		withDefault(notNull(typed("balance", "decimal(10,2)")), "0.00"),
	), "id"), "person:{id}")
	wide := compiled(t, users(
		notNull(typed("shop", "varchar(20)")), notNull(typed("id", "int(10) unsigned")),
		typed("title", "varchar(200)"), typed("title_ru", "varchar(200)"), typed("text", "text"), typed("code", "char(8)"),
		typed("stock", "int(11)"), typed("sold", "bigint(20) unsigned"), typed("rank", "smallint(6)"), typed("active", "tinyint(1)"),
		typed("price", "decimal(12,4)"), typed("weight", "double"), typed("size", "enum('S','M','L')"), typed("tags", "set('new','sale','eco')"),
		typed("added", "date"), typed("changed", "datetime(3)"), typed("opens", "time"), typed("doc", "mariajson"),
		typed("hash", "varbinary(16)"), typed("uid", "uuid"),
	), "article:{shop}:{id}")
	return []benchRow{
		{"people", people, []byte("person:1000000000001"), []byte(`{"name":"Person 1","email":"person1@example.com","balance":12.34}`)},
		{"wide", wide, []byte("article:Zürich:4200000000"), []byte(`{"title":"Kettle \"Classic\", 1.7\u00a0l","title_ru":"Чайник «Классик»",` +
			`"text":"Boils in three minutes.\nSwitches itself off; its lid opens far enough to be cleaned by hand.","code":"K-17",` +
			`"stock":17,"sold":123456,"rank":-3,"active":true,"price":1299.5,"weight":0.985,"size":"M","tags":"eco,new",` +
			`"added":"2024-02-29","changed":"2024-03-01 12:34:56.7","opens":null,"doc":{"watts":2200,"colours":["black","größer"]},` +
			`"hash":"AAECAwQFBgcICQoLDA0ODw==","uid":"123E4567-e89b-12d3-a456-426614174000"}`)},
	}
}

func BenchmarkNames(b *testing.B) {
	for _, row := range benchRows(b) {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				row.m.Names(row.key)
			}
		})
	}
}

func BenchmarkCanonical(b *testing.B) {
	for _, row := range benchRows(b) {
		b.Run(row.name, func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(row.value)))
			for b.Loop() {
				var err error
				if dst, err = row.m.Canonical(dst[:0], row.key, row.value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRowWritten(b *testing.B) {
	for _, row := range benchRows(b) {
		b.Run(row.name, func(b *testing.B) {
			image, err := row.m.Canonical(nil, row.key, row.value)
			if err != nil {
				b.Fatal(err)
			}
			values := [][]byte{image}
			var dst []any
			b.ReportAllocs()
			b.SetBytes(int64(len(image)))
			for b.Loop() {
				if dst, err = row.m.RowWritten(dst[:0], row.key, values); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAllocations: what runs for every command and for every key of a mapping takes no memory.
func TestAllocations(t *testing.T) {
	set, m, byTime := shopSet(t), everyType(t), keyed(t, "datetime(3)")
	key, timeKey := []byte("k:name:42"), []byte("user:2024-01-02 03:04:05.678")
	n := testing.AllocsPerRun(100, func() {
		for _, key := range keysOfAll {
			set.Match(key)
		}
		m.Names(key)
		_ = m.Refusal(key)
		byTime.Names(timeKey)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	people, room := benchRows(t)[0], make([]byte, 0, 200)
	n = testing.AllocsPerRun(100, func() {
		if _, err := people.m.Canonical(room, people.key, people.value); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for an image", n)
	}
}
