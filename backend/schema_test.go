package backend

import (
	"fmt"
	"strings"
	"testing"

	"keyrow/mapping"
	"keyrow/test/harness"
)

func TestReadSchema(t *testing.T) {
	my := harness.SharedMySQL(t)
	db, other := my.NewDB(t), my.NewDB(t)
	my.Exec(db, "CREATE TABLE parents (id INT PRIMARY KEY) ENGINE=InnoDB;"+
		"CREATE TABLE users ("+
		"id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, name VARCHAR(50) NOT NULL, ref INT, tag CHAR(3) CHARACTER SET latin1,"+
		"price DECIMAL(10,2) DEFAULT 1.5, at DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),"+
		"twice BIGINT AS (ref*2) VIRTUAL, kept DOUBLE AS (price*3) STORED, doc JSON, note LONGTEXT, flags BIT(4) DEFAULT b'101',"+
		"kind ENUM('a','b') NOT NULL DEFAULT 'b', sum DOUBLE, zero INT(5) ZEROFILL, bytes VARBINARY(9) DEFAULT 'a\\0b',"+
		"PRIMARY KEY (id), UNIQUE KEY by_name (name, ref), KEY by_note (note(10)),"+
		"FOREIGN KEY (ref) REFERENCES parents (id));"+
		"CREATE TRIGGER t1 BEFORE INSERT ON users FOR EACH ROW SET NEW.ref = NULL;"+
		"CREATE VIEW v AS SELECT id FROM users")
	my.Exec(other, "CREATE TABLE users (x INT) ENGINE=MyISAM")

	conn := openMySQL(t, MySQLConfig{DSN: my.DSN(db), MaxOpen: 1, Timeout: harness.Patience})
	got, err := ReadSchema(t.Context(), conn, []string{"users", other + ".users", "v", "nowhere", "Users", "no.users"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 {
		t.Errorf("%d tables, want 3", len(got))
	}
	want := map[string]string{
		"users": db + ".users InnoDB\n" +
			`id bigint "bigint(20) unsigned" unsigned auto_increment precision=20
name varchar "varchar(50)" length=50/200 utf8mb4/utf8mb4_general_ci
ref int "int(11)" null precision=10
tag char "char(3)" null length=3/3 latin1/latin1_swedish_ci
price decimal "decimal(10,2)" null precision=10,2 default="1.50"
at datetime "datetime(3)" null fsp=3 default=expr on-update
twice bigint "bigint(20)" null generated precision=19
kept double "double" null generated precision=22
doc longtext "longtext" null json length=4294967295/4294967295 utf8mb4/utf8mb4_bin
note longtext "longtext" null length=4294967295/4294967295 utf8mb4/utf8mb4_general_ci
flags bit "bit(4)" null precision=4 default="5"
kind enum "enum('a','b')" length=1/4 utf8mb4/utf8mb4_general_ci default="b"
sum double "double" null precision=22
zero int "int(5) unsigned zerofill" unsigned null precision=10
bytes varbinary "varbinary(9)" null length=9/9 default="a\x00b"
index PRIMARY unique [id]
index by_name unique [name ref]
index by_note [note] prefix
index ref [ref]
trigger t1
`,
		other + ".users": other + ".users MyISAM\nx int \"int(11)\" null precision=10\n",
		"v":              db + ".v \nid bigint \"bigint(20) unsigned\" unsigned precision=20 default=\"0\"\n",
	}
	for spelled, w := range want {
		if got[spelled] == nil {
			t.Errorf("%s is missing", spelled)
		} else if g := describe(got[spelled]); g != w {
			t.Errorf("%s:\n%s\nwant\n%s", spelled, g, w)
		}
	}
}

func describe(t *mapping.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.%s %s\n", t.Schema, t.Name, t.Engine)
	for _, c := range t.Columns {
		fmt.Fprintf(&b, "%s %s %q", c.Name, c.Type, c.ColumnType)
		for _, flag := range []struct {
			set  bool
			name string
		}{{c.Unsigned, "unsigned"}, {c.Nullable, "null"}, {c.AutoIncrement, "auto_increment"}, {c.Generated, "generated"},
			{c.JSON, "json"}} {
			if flag.set {
				b.WriteString(" " + flag.name)
			}
		}
		if c.Length != 0 || c.Octets != 0 {
			fmt.Fprintf(&b, " length=%d/%d", c.Length, c.Octets)
		}
		if c.Precision != 0 {
			fmt.Fprintf(&b, " precision=%d", c.Precision)
		}
		if c.Scale != 0 {
			fmt.Fprintf(&b, ",%d", c.Scale)
		}
		if c.Fsp != 0 {
			fmt.Fprintf(&b, " fsp=%d", c.Fsp)
		}
		if c.Charset != "" {
			fmt.Fprintf(&b, " %s/%s", c.Charset, c.Collation)
		}
		if c.DefaultExpr {
			b.WriteString(" default=expr")
		} else if c.Default != nil {
			fmt.Fprintf(&b, " default=%q", *c.Default)
		}
		if c.OnUpdate {
			b.WriteString(" on-update")
		}
		b.WriteByte('\n')
	}
	for _, i := range t.Indexes {
		fmt.Fprintf(&b, "index %s", i.Name)
		if i.Unique {
			b.WriteString(" unique")
		}
		fmt.Fprintf(&b, " %v", i.Columns)
		if i.Prefix {
			b.WriteString(" prefix")
		}
		b.WriteByte('\n')
	}
	for _, name := range t.Triggers {
		fmt.Fprintf(&b, "trigger %s\n", name)
	}
	return b.String()
}

// What MariaDB tells of a default is what it stores when the column is left out.
func TestDefaultIsWhatIsStored(t *testing.T) {
	my := harness.SharedMySQL(t)
	db := my.NewDB(t)
	defaults := []string{
		"INT DEFAULT 5", "INT DEFAULT -1", "INT NOT NULL DEFAULT 0", "DECIMAL(5,2) DEFAULT 1.5", "FLOAT DEFAULT 0", "DOUBLE DEFAULT 0.12345678901234567",
		`VARCHAR(20) DEFAULT 'it''s \\ "x"'`, "VARCHAR(20) DEFAULT ''", "VARCHAR(20) DEFAULT NULL",
		"VARCHAR(20) DEFAULT 'NULL'", "VARCHAR(20) DEFAULT 'current_timestamp()'", `VARCHAR(20) DEFAULT 'a\nb\r\t\Z%_'`,
		"VARCHAR(20) DEFAULT 'größe'", `VARBINARY(20) DEFAULT 'a\0b'`, "VARBINARY(20) DEFAULT x'616200'", "BIT(3) DEFAULT b'101'",
		"BIT(20) DEFAULT b'10000000011'", "ENUM('a','b''c') DEFAULT 'b''c'", "SET('a','b') DEFAULT 'a,b'", "DATE DEFAULT '2020-01-01'",
		"TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00'", "YEAR DEFAULT 2020", "BOOL DEFAULT TRUE", "TEXT DEFAULT 'x'",
		"TIME DEFAULT '-12:30:00'", "DATETIME(2) DEFAULT '2020-01-01 00:00:00.25'", "INT DEFAULT 0x41", "VARCHAR(9) DEFAULT 0x4142",
	}
	var table strings.Builder
	for i, d := range defaults {
		fmt.Fprintf(&table, ", c%d %s", i, d)
	}
	my.Exec(db, "CREATE TABLE d (id INT PRIMARY KEY"+table.String()+"); INSERT INTO d (id) VALUES (1)")

	conn := openMySQL(t, MySQLConfig{DSN: my.DSN(db), MaxOpen: 1, Timeout: harness.Patience})
	s, err := ReadSchema(t.Context(), conn, []string{"d"})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range s["d"].Columns[1:] {
		if c.DefaultExpr {
			t.Errorf("%s: taken for an expression", defaults[i])
			continue
		}
		got := "NULL"
		if c.Default != nil {
			got = *c.Default
		}
		expr := c.Name
		if c.Type == "bit" {
			expr += "+0"
		}
		if want := my.Text(db, "SELECT "+expr+" FROM d"); got != want {
			t.Errorf("%s: %q, want %q", defaults[i], got, want)
		}
	}
}

func TestDefaultExpressions(t *testing.T) {
	my := harness.SharedMySQL(t)
	db := my.NewDB(t)
	my.Exec(db, "CREATE TABLE d (a DATETIME DEFAULT CURRENT_TIMESTAMP, b TIMESTAMP DEFAULT NOW() ON UPDATE NOW(),"+
		"c INT DEFAULT (1+2), d VARCHAR(40) DEFAULT UUID(), e VARCHAR(40) DEFAULT CONCAT('a','b'), f DATE DEFAULT (CURDATE()))")
	conn := openMySQL(t, MySQLConfig{DSN: my.DSN(db), MaxOpen: 1, Timeout: harness.Patience})
	s, err := ReadSchema(t.Context(), conn, []string{"d"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s["d"].Columns {
		if !c.DefaultExpr || c.Default != nil || c.Generated {
			t.Errorf("%+v is not taken for an expression", c)
		}
		if c.OnUpdate != (c.Name == "b") {
			t.Errorf("%s: on update %v", c.Name, c.OnUpdate)
		}
	}
}

// What information_schema does not show wholly is left to MySQL.
func TestDefaultsNotShown(t *testing.T) {
	my := harness.SharedMySQL(t)
	db := my.NewDB(t)
	my.Exec(db, "CREATE TABLE d (a VARCHAR(9) DEFAULT '😀', b TEXT DEFAULT 'x😀', c VARBINARY(9) DEFAULT x'ff80', d FLOAT DEFAULT 16777217, "+
		"e ENUM('😀') DEFAULT '😀', f VARBINARY(9) DEFAULT '😀', g FLOAT DEFAULT 1.0000001)")
	conn := openMySQL(t, MySQLConfig{DSN: my.DSN(db), MaxOpen: 1, Timeout: harness.Patience})
	s, err := ReadSchema(t.Context(), conn, []string{"d"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s["d"].Columns {
		if !c.DefaultExpr || c.Default != nil {
			t.Errorf("the default of %s is taken for %q", c.Name, *c.Default)
		}
	}
}

// MySQL is not installed here; these are the texts its information_schema has, of 5.7 and 8.0.
func TestMySQLDefault(t *testing.T) {
	tests := []struct {
		columnType, text string
		generated        bool
		want             string // "expr" for an expression
	}{
		{"varchar", "it's", false, "it's"},
		{"varchar", "", false, ""},
		{"varchar", "CURRENT_TIMESTAMP", false, "CURRENT_TIMESTAMP"},
		{"varchar", "0x61", false, "0x61"},
		{"varchar", "uuid()", true, "expr"},
		{"int", "-1", false, "-1"},
		{"decimal", "1.50", false, "1.50"},
		{"datetime", "CURRENT_TIMESTAMP", false, "expr"},
		{"datetime", "CURRENT_TIMESTAMP(3)", true, "expr"},
		{"timestamp", "2020-01-01 00:00:00", false, "2020-01-01 00:00:00"},
		{"bit", "b'101'", false, "5"},
		{"bit", "b'10000000011'", false, "1027"},
		{"binary", "0x616200", false, "ab\x00"},
		{"varbinary", "0x", false, ""},
		{"enum", "b", false, "b"},
	}
	for _, tt := range tests {
		text, expr := mysqlDefault(tt.columnType, tt.text, tt.generated)
		got := "expr"
		if !expr {
			got = *text
		}
		if got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.columnType, tt.text, got, tt.want)
		}
	}
}

func TestUnquote(t *testing.T) {
	for text, want := range map[string]string{
		"''": "", "'a'": "a", "'it''s'": "it's", `'a\\b'`: `a\b`, `'\0\n\r\t\b\Z\'\"'`: "\x00\n\r\t\b\x1a'\"",
	} {
		if got, ok := unquote(text); !ok || got != want {
			t.Errorf("%s: %q %v, want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "'", "a", "'a' || 'b'", "concat('a','b')", "'a'b'"} {
		if got, ok := unquote(text); ok {
			t.Errorf("%s: taken for %q", text, got)
		}
	}
}
