package mapping

import "testing"

func TestKeyFrom(t *testing.T) {
	table := &Table{
		Schema: "shop", Name: "stock", Engine: "InnoDB",
		Columns: []Column{
			{Name: "house", Type: "varchar", ColumnType: "varchar(9)", Length: 9, Octets: 36, Charset: "utf8mb4", Collation: "utf8mb4_bin"},
			{Name: "no", Type: "int", ColumnType: "int(11)", Precision: 10},
			{Name: "code", Type: "int", ColumnType: "int(11)", Precision: 10},
		},
		Indexes: []Index{{Name: "PRIMARY", Unique: true, Columns: []string{"house", "no"}}, {Name: "code", Unique: true, Columns: []string{"code"}}},
	}
	var configs []Config
	for _, key := range []string{"a:{house}:{no}", "b:{no}/{house}", "c:{house}:{no}:", "d:{code}"} {
		c := Default()
		c.Name, c.Key, c.Table, c.Write = key[:1], key, "stock", "deny"
		configs = append(configs, c)
	}
	set, findings := NewSet(configs, nil, Schema{"stock": table})
	if set == nil {
		t.Fatal(findings)
	}
	a, b, c, d := set.All()[0], set.All()[1], set.All()[2], set.All()[3]
	if kin := set.Kin(a); len(kin) != 3 || kin[0] != b || kin[2] != d {
		t.Errorf("the kin of a is %v", kin)
	}
	if !b.Follows(a) || !a.Follows(c) || d.Follows(a) || a.Follows(d) {
		t.Error("what follows from what is wrong")
	}
	for _, test := range []struct {
		m, o      *Mapping
		key, want string
	}{
		{b, a, "a:x:7", "b:7/x"}, {a, b, "b:7/x", "a:x:7"}, {c, a, "a:x:y:7", "c:x:y:7:"}, {b, a, "a:x/y:7", "b:7/x/y"}, {b, a, "a:x:07", ""},
	} {
		if got := string(test.m.KeyFrom(nil, test.o, []byte(test.key))); got != test.want {
			t.Errorf("%s in %s is %q, want %q", test.key, test.m.Name, got, test.want)
		}
	}
}
