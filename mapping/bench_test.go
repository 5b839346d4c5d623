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

func BenchmarkNames(b *testing.B) {
	m, key := everyType(b), []byte("k:name:42")
	b.ReportAllocs()
	for b.Loop() {
		m.Names(key)
	}
}

func BenchmarkCanonical(b *testing.B) {
	m, key := everyType(b), []byte("k:name:42")
	value := []byte(`{"id":42,"name":"name","flag":1,"big":18446744073709551615,"dec":-1.5000,"d":0.1,"c":"abc","t":"some text","day":"2024-01-02","dt":"2024-01-02 03:04:05.678"}`)
	var dst []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		var err error
		if dst, err = m.Canonical(dst[:0], key, value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRow(b *testing.B) {
	m, key := everyType(b), []byte("k:name:42")
	image, err := m.Canonical(nil, key, []byte(`{"dec":-1.5000,"d":0.1,"c":"abc","day":"2024-01-02","dt":"2024-01-02 03:04:05.678"}`))
	if err != nil {
		b.Fatal(err)
	}
	var dst []any
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = m.Row(dst[:0], key, image); err != nil {
			b.Fatal(err)
		}
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
}
