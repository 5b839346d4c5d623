package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrow/mapping"
)

// verify returns what it counts, and what it tells by key.
func (lg *loading) verify(m *mapping.Mapping, o VerifyOptions) (VerifyStats, map[string]string) {
	lg.t.Helper()
	told := map[string]string{}
	o.Mapping, o.Set = m, lg.set
	o.Differs = func(d Differing) {
		text := d.Why
		for _, c := range d.Differences {
			text += fmt.Sprintf("%s: %s, %s;", c.Column, c.Image, c.Row)
		}
		if told[string(d.Key)] != "" {
			lg.t.Errorf("%s is told twice", d.Key)
		}
		told[string(d.Key)] = text
	}
	s, err := lg.Verify(lg.t.Context(), o)
	if err != nil {
		lg.t.Fatal(err)
	}
	return s, told
}

func (lg *loading) warm(m *mapping.Mapping) {
	lg.t.Helper()
	if _, err := lg.Warm(lg.t.Context(), WarmOptions{Mapping: m, Parallel: 2}); err != nil {
		lg.t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	lg := users(t, loaderSetup{})
	ctx, m := t.Context(), lg.set.All()[0]
	lg.warm(m)
	if s, told := lg.verify(m, VerifyOptions{}); (s != VerifyStats{Images: 1000, Same: 1000}) || len(told) > 0 {
		t.Errorf("%+v %v", s, told)
	}

	long := strings.Repeat("x", 50)
	lg.mysql.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id IN (1, 2, 3); UPDATE users SET name = '"+long+"' WHERE id = 4;"+
		"DELETE FROM users WHERE id = 5; INSERT INTO users VALUES (2001, 'late')")
	lg.write("user:2", `{"id":2,"name":"written"}`) // to be flushed
	lg.rdb.Del(ctx, "user:3")
	lg.rdb.HSet(ctx, lg.sets[lg.journal.Partition([]byte("user:6"))].parked, "user:6", "{}")
	lg.rdb.Set(ctx, "user:6", `{"id":6,"name":"parked"}`, 0)
	lg.rdb.Del(ctx, "user:7", "user:8", "user:9")
	lg.rdb.RPush(ctx, "user:7", "x")
	lg.rdb.Set(ctx, "user:8", "text", 0)
	lg.rdb.Set(ctx, "user:9", `{"id":9, "name":"n9"}`, 0)
	lg.rdb.Set(ctx, "user:10", `{"id":10,"mail":"`+strings.Repeat("é", 1000)+`"}`, 0)
	lg.rdb.Set(ctx, "user:007", "x", 0)
	lg.rdb.Set(ctx, "other:1", "x", 0)
	lg.rdb.Set(ctx, lg.aux("user:2001"), mapping.NegativeEntry, time.Hour)
	lg.rdb.Set(ctx, lg.aux("user:2002"), mapping.NegativeEntry, time.Hour)
	lg.rdb.Set(ctx, lg.aux("user:3"), "a lease", time.Hour)
	before := lg.rdb.DBSize(ctx).Val()

	differ := map[string]string{
		"user:1":    `name: "n1", "new";`,
		"user:4":    `name: "n4", "` + long + `";`,
		"user:5":    "the row is gone",
		"user:7":    "it holds a list, which is not the value of a row",
		"user:8":    `: "text" (not JSON: 't' at offset 0; want a JSON object), {"id":8,"name":"n8"};`,
		"user:9":    `: {"id":9, "name":"n9"}, {"id":9,"name":"n9"};`,
		"user:10":   `name: absent, "n10";mail: "` + strings.Repeat("é", 49) + `… (2002 bytes), no such column;`,
		"user:2001": "there is a row, but Redis remembers that there is none",
	}
	want := VerifyStats{Images: 1001, Same: 991, Differ: 8, Pending: 1, Parked: 1, Foreign: 1}
	s, told := lg.verify(m, VerifyOptions{})
	if s != want || !maps.Equal(told, differ) {
		t.Errorf("%+v, want %+v\n%q\nwant\n%q", s, want, told, differ)
	}
	if n := lg.rdb.DBSize(ctx).Val(); n != before {
		t.Errorf("%d keys, %d before", n, before)
	}

	want.Repaired = 8
	if s, told := lg.verify(m, VerifyOptions{Repair: true}); s != want || len(told) != 8 {
		t.Errorf("repair: %+v, want %+v, %q", s, want, told)
	}
	for key := range differ {
		if n := lg.rdb.Exists(ctx, key, lg.aux(key)).Val(); n != 0 {
			t.Errorf("%s is still there", key)
		}
	}
	lg.inRedis("user:2", `{"id":2,"name":"written"}`)
	lg.inRedis("user:6", `{"id":6,"name":"parked"}`)
	want = VerifyStats{Images: 993, Same: 991, Pending: 1, Parked: 1, Foreign: 1}
	if s, _ := lg.verify(m, VerifyOptions{}); s != want {
		t.Errorf("after it: %+v, want %+v", s, want)
	}
}

// What changes while it is compared is no difference.
func TestVerifyLooksAgain(t *testing.T) {
	lg := users(t, loaderSetup{})
	ctx, m := t.Context(), lg.set.All()[0]
	lg.warm(m)
	lg.mysql.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id <= 6")
	lg.on(HookSuspected, func() {
		lg.rdb.Del(ctx, "user:1")
		lg.rdb.Set(ctx, "user:2", `{"id":2,"name":"new"}`, 0)
		lg.write("user:3", `{"id":3,"name":"newer"}`)
		lg.remove("user:4")
		lg.mysql.Exec(lg.db, "UPDATE users SET name = 'n5' WHERE id = 5")
	})
	s, told := lg.verify(m, VerifyOptions{Repair: true})
	want := VerifyStats{Images: 1000, Same: 996, Differ: 1, Repaired: 1, Pending: 2, Gone: 1}
	if s != want || len(told) != 1 || told["user:6"] == "" {
		t.Errorf("%+v, want %+v: %q", s, want, told)
	}
}

// A fill that has read a row before the repair does not bring it back.
func TestVerifyRepairBesideFill(t *testing.T) {
	lg := users(t, loaderSetup{})
	m := lg.set.All()[0]
	lg.warm(m)
	lg.mysql.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id = 1")
	reader := lg.another(lg.Loader.db, 30*time.Second)
	lg.on(HookSuspected, func() { lg.rdb.Set(context.Background(), lg.aux("user:1"), reader.newToken(), time.Hour) })
	if s, _ := lg.verify(m, VerifyOptions{Repair: true}); s.Repaired != 1 {
		t.Errorf("%+v", s)
	}
	if n := lg.rdb.Exists(t.Context(), lg.aux("user:1")).Val(); n != 0 {
		t.Error("the lease is still there")
	}
}

func TestVerifySample(t *testing.T) {
	lg := users(t, loaderSetup{})
	m := lg.set.All()[0]
	if s, _ := lg.verify(m, VerifyOptions{Sample: 5}); s != (VerifyStats{}) {
		t.Errorf("of nothing: %+v", s)
	}
	lg.warm(m)
	lg.mysql.Exec(lg.db, "UPDATE users SET name = 'new'")
	seen := map[string]bool{}
	for range 20 {
		s, told := lg.verify(m, VerifyOptions{Sample: 100})
		if s.Images != 100 || s.Differ != len(told) || s.Differ != 100 {
			t.Errorf("%+v, %d told", s, len(told))
		}
		for key := range told {
			seen[key] = true
		}
	}
	if len(seen) < 300 {
		t.Errorf("20 samples of 100 have %d different keys", len(seen))
	}
	if s, told := lg.verify(m, VerifyOptions{Sample: 5000}); s.Images != 1000 || len(told) != 1000 {
		t.Errorf("of more than there are: %+v", s)
	}
}

func TestVerifyKinds(t *testing.T) {
	hash, text := usersMapping(), usersMapping()
	hash.Name, hash.Key, hash.Value, hash.Write = "hash", "hash[{id}]", "hash", "deny"
	hash.Fields = map[string]string{"name": "called"}
	text.Name, text.Key, text.Value, text.Column, text.Write = "text", "text:{id}", "string", "name", "deny"
	lg := users(t, loaderSetup{mappings: []mapping.Config{hash, text}})
	lg.mysql.Exec(lg.db, "ALTER TABLE users MODIFY name VARCHAR(50)")
	for i, differ := range []map[string]string{
		{"hash[1]": `name: "n1", "";`, "hash[2]": `name: "n2", absent;`, "hash[3]": "the row is gone", "hash[4]": `x: "y", no such column;`},
		{"text:1": `name: "n1", "";`, "text:2": "the row is gone, or its column is NULL", "text:3": "the row is gone, or its column is NULL"},
	} {
		m := lg.set.All()[i]
		lg.mysql.Exec(lg.db, "REPLACE INTO users SELECT seq, CONCAT('n', seq) FROM seq_1_to_10")
		lg.warm(m)
		if s, told := lg.verify(m, VerifyOptions{}); s.Same != 1000 || len(told) > 0 {
			t.Errorf("%s: %+v %q", m.Name, s, told)
		}
		lg.mysql.Exec(lg.db, "UPDATE users SET name = '' WHERE id = 1; UPDATE users SET name = NULL WHERE id = 2; DELETE FROM users WHERE id = 3")
		if i == 0 {
			lg.rdb.HSet(t.Context(), "hash[4]", "x", "y")
		}
		s, told := lg.verify(m, VerifyOptions{Repair: true})
		if !maps.Equal(told, differ) || s.Repaired != len(differ) {
			t.Errorf("%s: %+v\n%q\nwant\n%q", m.Name, s, told, slices.Sorted(maps.Values(differ)))
		}
	}
}
