package backend

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"keyrow/mapping"
)

// people is a set of one mapping, person:{id}, and the entries of n rows of it as batch.lua returns them.
func people(t testing.TB, n int) (set *mapping.Set, entries []any) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "people", "person:{id}", "people"
	set, findings := mapping.NewSet([]mapping.Config{c}, nil, mapping.Schema{"people": {
		Schema: "shop", Name: "people", Engine: "InnoDB",
		Indexes: []mapping.Index{{Name: "PRIMARY", Unique: true, Columns: []string{"id"}}},
		Columns: []mapping.Column{
			{Name: "id", Type: "bigint", ColumnType: "bigint(20)"},
			{Name: "name", Type: "varchar", ColumnType: "varchar(100)", Length: 100, Octets: 400, Charset: "utf8mb4"},
			{Name: "email", Type: "varchar", ColumnType: "varchar(100)", Length: 100, Octets: 400, Charset: "utf8mb4", Nullable: true},
			{Name: "balance", Type: "decimal", ColumnType: "decimal(10,2)", Precision: 10, Scale: 2},
		},
	}})
	if set == nil {
		t.Fatal(findings)
	}
	for i := range n {
		image := fmt.Sprintf(`{"id":%d,"name":"Person %d","email":"person%d@example.com","balance":12.34}`, 1000000000000+i, i, i)
		entries = append(entries, fmt.Sprintf("person:%d", 1000000000000+i), int64(markedWritten), image)
	}
	return set, entries
}

// TestDecodeTogether: what an item becomes does not depend on the others of its batch, whose memory it shares.
func TestDecodeTogether(t *testing.T) {
	set, entries := people(t, 1000)
	for _, image := range []any{
		nil,
		`{"id":7,"name":"` + strings.Repeat("é", 3*slabMost) + `","balance":0}`,
		`{"name":"a\"b"}`,
		`{"name":null,"balance":1}`,
		[]any{"name", "Person 7", "balance", "1"},
	} {
		for _, flags := range []int{markedWritten, markedDeleted, markedMaybe} {
			entries = append(entries, "person:7", int64(flags), image)
		}
	}
	entries = append(entries, "person:07", int64(markedWritten), `{}`, "session:7", int64(markedWritten), "x")
	items := decodeAll(entries, set)
	for i, it := range items {
		if alone := decodeAll(entries[3*i:3*i+3], set); len(alone) != 1 || !reflect.DeepEqual(alone[0], it) {
			t.Errorf("%v: %+v; alone %+v", entries[3*i:3*i+3], it, alone)
		}
	}
	if len(items) != len(entries)/3 || items[999].row[1] != "Person 999" || string(items[999].image[0]) != entries[3*999+2] {
		t.Errorf("%d items, one %+v", len(items), items[999])
	}
}

// BenchmarkDecode: a batch of what Redis said, made into the items and the statement for MySQL.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 256, 4096} {
		set, entries := people(b, n)
		build := newBuilder(set.All()[0], nil)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				items := decodeAll(entries, set)
				for len(items) > 0 {
					_, _, n := build.insert(items[:min(len(items), build.most())], build.conflict, 1<<24)
					items = items[n:]
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
	}
}
