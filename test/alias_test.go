package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// aliasTests have rows with a key of each type, and other spellings of their keys.
var aliasTests = []struct {
	columnType string
	form       byte     // of the values in SQL: 'n' as they are, '"' characters, 'b' bytes
	rows       []string // their keys
	misspelled []string // no value is spelled so: nothing is there, and nothing can be written
	equal      []string // MySQL takes them for a row's: nothing is there, and what is written does not reach that row
	distinct   []string // nothing is there
}{
	{columnType: "TINYINT", form: 'n', rows: list("0", "-1", "127"), misspelled: list("-0", "+0", "00", "01", "-01", "+1", "1.0", "1e0", "-1.0", "128", "-129", "256", "255",
		" 0", "0 ", "0x0", "true", "false", "0\x00", "\x000", "٠", "０", "−1", "null", "NULL", "''", "0;", "0 OR 1=1", "18446744073709551616", strings.Repeat("0", 100)), distinct: list("1", "-127")},
	{columnType: "INT", form: 'n', rows: list("42", "-2147483648", "2147483647"), misspelled: list("4294967338", "2147483648", "-2147483649", "42abc", "42 ", "42\x00", "4 2", "0x2a", "42e0",
		"4.2e1", "42.", "42.4", "--42", "+42", "042", "42\n", "99999999999999999999999"), distinct: list("-42", "4", "420")},
	{columnType: "INT(10) UNSIGNED ZEROFILL", form: 'n', rows: list("42", "0"), misspelled: list("0000000042", "042", "00", "0000000000", "-42", "4294967338", "-0"), distinct: list("420")},
	{columnType: "BIGINT", form: 'n', rows: list("9007199254740993", "-9223372036854775808", "9223372036854775807"), misspelled: list("9223372036854775808", "-9223372036854775809",
		"18446744073709551615", "18446744073709551616", "27670116110564327423", "9.007199254740993e15", "9007199254740993.0", "9007199254740993.4", "+9007199254740993", "09007199254740993", "-0"),
		distinct: list("9007199254740992", "9007199254740994", "9223372036854775806", "-9223372036854775807", "-1")},
	{columnType: "BIGINT UNSIGNED", form: 'n', rows: list("18446744073709551615", "9223372036854775808", "0"), misspelled: list("-1", "18446744073709551616", "36893488147419103231", "-0",
		"-9223372036854775808", "1.8446744073709551615e19", "018446744073709551615"), distinct: list("18446744073709551614", "9223372036854775807", "9223372036854775809")},
	{columnType: "YEAR", form: 'n', rows: list("2024", "0", "2000"), misspelled: list("24", "02024", "0000", "00", "20", "100", "1900", "2156", "-0", "2e3", "2000.0", "-2000"), distinct: list("2001", "1901")},
	{columnType: "DECIMAL(5,2)", form: 'n', rows: list("1.50", "-0.05", "0.00"), misspelled: list("1.5", "1.500", "01.50", "+1.50", "-0.00", "0", "0.0", ".00", "-.05", "1.5e0", "1.504", "1000.00", "1.50 ", "1,50", "1.50\x00", "-0"),
		distinct: list("1.51", "0.05", "-1.50")},
	{columnType: "DECIMAL(18,0)", form: 'n', rows: list("999999999999999999", "0"), misspelled: list("999999999999999999.0", "1000000000000000000", "-0", "0.0", "1e18"), distinct: list("999999999999999998", "-999999999999999999")},

	{columnType: "CHAR(5) COLLATE utf8mb4_general_ci", form: '"', rows: list("Bob", "é"), misspelled: list("Bob ", "Bob  ", "Bobbob", "\xff", "Bob\xc3", "é   "), equal: list("bob", "BOB", "Bób", "e", "É"),
		distinct: list("Bob\x00", "\x00Bob", " Bob", "e\u0301", "Bo", "Bo_", "%")},
	{columnType: "CHAR(5) COLLATE utf8mb4_bin", form: '"', rows: list("Bob"), misspelled: list("Bob ", "Bobbob"), distinct: list("bob", "Bób", "Bob\x00", "Bob\t")},
	{columnType: "VARCHAR(9) COLLATE utf8mb4_general_ci", form: '"', rows: list("Bob", "Straße", "trail "), misspelled: list("0123456789", "\xff", "\xed\xa0\x80", "\xc1\xa2ob"),
		equal: list("bob", "Bob ", "BOB  ", "Bób", "strase", "trail", "trail  "), distinct: list("Bob\x00", "B\x00ob", "Bo\u200bb", "Strasse", "Ｂob", "Bob\u00a0")},
	{columnType: "VARCHAR(9) COLLATE utf8mb4_unicode_ci", form: '"', rows: list("Bob", "Straße"), equal: list("bob", "Strasse", "STRASSE", "Bob "), distinct: list("Bob\x00", "Bo\x00b", "Bo\u200bb", "Ｂob", "Ⓑob")},
	{columnType: "VARCHAR(9) COLLATE utf8mb4_bin", form: '"', rows: list("Bob", "x ", "é"), equal: list("Bob ", "x", "x  "), distinct: list("bob", "Bób", "Bob\x00", "e\u0301", "É")},
	{columnType: "VARCHAR(9) COLLATE utf8mb4_nopad_bin", form: '"', rows: list("Bob", "x "), misspelled: list("0123456789"), distinct: list("Bob ", "bob", "Bob\x00", "x", "x  ")},
	{columnType: "VARCHAR(9) CHARACTER SET latin1", form: '"', rows: list("é", "f€"), misspelled: list("ł", "😀", "é\u0301", "\xe9"), equal: list("É", "e", "F€"), distinct: list("f")},
	{columnType: "VARCHAR(9) CHARACTER SET utf8mb3", form: '"', rows: list("?", "é"), misspelled: list("😀"), equal: list("e")},
	{columnType: "ENUM('a','B','1','2')", form: '"', rows: list("a", "2"), misspelled: list("A", "b", "0", "3", "a ", "2 ", "02", "a\x00", "a,B"), distinct: list("1", "B")},
	{columnType: "BINARY(4)", form: 'b', rows: list("ab\x00\x00", "\x00\x00\x00\x00", "\xff\xff\xff\xff"), misspelled: list("ab", "ab\x00", "ab\x00\x00\x00", "\x00", "\xff"), distinct: list("ab  ", "AB\x00\x00", "\x00ab\x00")},
	{columnType: "VARBINARY(9)", form: 'b', rows: list("ab", "\x00", "\xff"), misspelled: list("0123456789"), distinct: list("ab\x00", "ab ", "AB", "\x00\x00", "\xc3\xbf", "\xfe")},

	{columnType: "DATE", form: '"', rows: list("2024-01-02", "0000-00-00"), misspelled: list("2024-1-2", "20240102", "24-01-02", "2024-01-02 00:00:00", "2024/01/02", "2024-01-02 ", "2024-01-32", "2023-02-29", "0000-0-0", "0", "2024-01-02\x00",
		"02024-01-02", "+2024-01-02"), distinct: list("2024-01-03", "2024-00-00", "0000-01-01")},
	{columnType: "DATETIME", form: '"', rows: list("2024-01-02 03:04:05", "2024-01-02 00:00:00"), misspelled: list("2024-01-02T03:04:05", "2024-01-02", "2024-01-02 03:04:05.0", "2024-01-02 03:04:05.4", "20240102030405",
		"2024-01-02 3:04:05", "2024-01-01 24:00:00", "2024-01-02 03:04:05Z", "2024-01-02 03:04:05+00:00", "2024-01-02  03:04:05", "2024-01-02 03:04"), distinct: list("2024-01-02 03:04:06")},
	{columnType: "DATETIME(3)", form: '"', rows: list("2024-01-02 03:04:05.120", "2024-01-02 03:04:05.000"), misspelled: list("2024-01-02 03:04:05.12", "2024-01-02 03:04:05", "2024-01-02 03:04:05.1200", "2024-01-02 03:04:05.1204",
		"2024-01-02 03:04:05.", "2024-01-02 03:04:05,120"), distinct: list("2024-01-02 03:04:05.121")},
	{columnType: "TIMESTAMP", form: '"', rows: list("2024-01-02 03:04:05"), misspelled: list("1970-01-01 00:00:00", "2038-01-19 03:14:08", "2024-01-02 03:04:05.0", "2024-01-02 04:04:05+01:00", "1704164645"),
		distinct: list("2024-01-02 04:04:05", "0000-00-00 00:00:00")},
	{columnType: "TIME", form: '"', rows: list("00:00:00", "-01:00:00", "100:00:00"), misspelled: list("-00:00:00", "0:00:00", "00:00", "0", "000:00:00", "0100:00:00", " 00:00:00", "-1:00:00", "-001:00:00", "839:00:00", "99:60:00", "3600",
		"00:00:00.0", "+00:00:00", "--01:00:00", "4 04:00:00"), distinct: list("01:00:00", "10:00:00")},
	{columnType: "TIME(1)", form: '"', rows: list("00:00:00.0", "-00:00:01.5"), misspelled: list("00:00:00", "-00:00:00.0", "-00:00:01.50", "-00:00:01"), distinct: list("00:00:01.5", "-00:00:01.6")},
	{columnType: "UUID", form: '"', rows: list("123e4567-e89b-12d3-a456-426614174000"), misspelled: list("123E4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000", "{123e4567-e89b-12d3-a456-426614174000}",
		"123e4567-e89b-12d3-a456-42661417400", "123e4567-e89b-12d3-a456-426614174000 ", "123e-4567-e89b-12d3-a456-426614174000"), distinct: list("123e4567-e89b-12d3-a456-426614174001")},
	{columnType: "INET4", form: '"', rows: list("10.0.0.1"), misspelled: list("010.0.0.1", "10.0.1", "10.0.0.1 ", "::ffff:10.0.0.1", "167772161", "10.0.0.01"), distinct: list("10.0.0.2")},
	{columnType: "INET6", form: '"', rows: list("::1", "2001:db8::1", "::ffff:1.2.3.4"), misspelled: list("0:0:0:0:0:0:0:1", "::0001", "2001:DB8::1", "2001:db8:0::1", "::ffff:102:304", "::1%lo", "1.2.3.4", "2001:db8:0:0:0:0:0:1", "::0.0.0.1"),
		distinct: list("::2", "::1.2.3.4")},
}

// A row is reached by the one spelling of its key, and by no other that MySQL, or anybody, might take for the same.
func TestNoAlias(t *testing.T) {
	t.Parallel()
	var config, tables strings.Builder
	for i, test := range aliasTests {
		fmt.Fprintf(&tables, "CREATE TABLE t%d (v %s NOT NULL PRIMARY KEY, n INT);", i, test.columnType)
		for n, key := range test.rows {
			v := key
			switch test.form {
			case '"':
				v = text(key)[0].sql
			case 'b':
				v = raw(key)[0].sql
			}
			fmt.Fprintf(&tables, "INSERT INTO t%d VALUES (%s, %d);", i, v, n)
		}
		fmt.Fprintf(&config, `
			[[mapping]]
			name = "json%[1]d"
			key = "json%[1]d:{v}"
			table = "t%[1]d"
			negative_ttl = "0"
			delete = "row"
			[[mapping]]
			name = "hash%[1]d"
			key = "hash%[1]d:{v}"
			table = "t%[1]d"
			value = "hash"
			negative_ttl = "0"
			[[mapping]]
			name = "string%[1]d"
			key = "string%[1]d:{v}"
			table = "t%[1]d"
			value = "string"
			column = "n"
			negative_ttl = "0"
			`, i)
	}
	s := newShop(t, harness.Options{Config: config.String()})
	s.sql(tables.String())
	s.Start()
	rows := func() (all [][]string) {
		for i, test := range aliasTests {
			all = append(all, s.table(fmt.Sprintf("SELECT '%s', HEX(v), n FROM t%d ORDER BY n, HEX(v)", strings.ReplaceAll(test.columnType, "'", ""), i))...)
		}
		return all
	}
	before := rows()

	// Whether Redis has the rows already or not, and whoever asks for all of them together.
	for range 2 {
		var commands [][]any
		var want []string
		for i, test := range aliasTests {
			var keys []any
			ask := func(key, n string) {
				fields, there := "[]", "0"
				if n != "nil" {
					fields, there = "[v "+key+" n "+n+"]", "1"
				}
				keys = append(keys, fmt.Sprintf("string%d:%s", i, key))
				commands = append(commands, []any{"HGETALL", fmt.Sprintf("hash%d:%s", i, key)}, []any{"HGET", fmt.Sprintf("hash%d:%s", i, key), "n"},
					[]any{"GET", fmt.Sprintf("string%d:%s", i, key)}, []any{"EXISTS", fmt.Sprintf("json%d:%s", i, key)})
				want = append(want, fields, n, n, there)
			}
			for _, key := range slices.Concat(test.misspelled, test.equal, test.distinct) {
				ask(key, "nil")
				commands, want = append(commands, []any{"GET", fmt.Sprintf("json%d:%s", i, key)}), append(want, "nil")
			}
			for n, key := range test.rows {
				ask(key, fmt.Sprint(n))
			}
			commands = append(commands, append([]any{"MGET"}, keys...))
			want = append(want, "["+strings.Repeat("nil ", len(keys)-len(test.rows))+strings.Join(list("0", "1", "2")[:len(test.rows)], " ")+"]")
		}
		for i, got := range s.pipeline(commands) {
			if got != want[i] {
				t.Errorf("%.200q\n got %.500q\nwant %.500q", commands[i], got, want[i])
			}
		}
	}

	// A spelling that is none is refused to those who write.
	s.unchanged("writes to keys that name no row", func() {
		var commands [][]any
		for i, test := range aliasTests {
			for _, key := range test.misspelled {
				key = fmt.Sprintf("json%d:%s", i, key)
				commands = append(commands, []any{"SET", key, `{"n":9}`}, []any{"SETEX", key, 100, `{"n":9}`}, []any{"MSET", "plain", "x", key, `{"n":9}`}, []any{"DEL", key}, []any{"UNLINK", "plain", key},
					[]any{"HSET", "hash" + key[4:], "n", 9}, []any{"HINCRBY", "hash" + key[4:], "n", 1}, []any{"HDEL", "hash" + key[4:], "n"},
					[]any{"SET", "string" + key[4:], 9}, []any{"INCR", "string" + key[4:]}, []any{"SETNX", "string" + key[4:], 9})
			}
		}
		for i, got := range s.pipeline(commands) {
			if !strings.HasPrefix(got, "-ERR keyrow: ") || !strings.Contains(got, "names no row") {
				t.Errorf("%.200q is answered %s", commands[i], got)
			}
		}
	})

	// A value that MySQL takes for another is a row of its own to everybody else. MySQL cannot hold both, so it is parked.
	var parked []string
	for i, test := range aliasTests {
		for _, key := range test.equal {
			key = fmt.Sprintf("json%d:%s", i, key)
			s.want("0", "DEL", key)
			s.want("OK", "SET", key, `{"n":9}`)
			parked = append(parked, key)
		}
	}
	s.Settled(parked...)
	for _, key := range parked {
		if got := s.show("GET", key); !strings.HasSuffix(got, `"n":9}`) {
			t.Errorf("%s, which was written, is %s", key, got)
		}
	}
	if after := rows(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("rows are\n%q, were\n%q", after, before)
	}
	for _, key := range parked {
		s.want("1", "DEL", key)
	}
	s.Settled()
	if after := rows(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("rows are\n%q, were\n%q", after, before)
	}

	// By its own spelling each row is written and deleted.
	for i, test := range aliasTests {
		for n, key := range test.rows {
			s.want("OK", "SET", fmt.Sprintf("json%d:%s", i, key), fmt.Sprintf(`{"n":%d}`, n+100))
		}
	}
	s.Settled()
	for _, row := range before {
		row[2] = "10" + row[2]
	}
	if after := rows(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("rows are\n%q, were to be\n%q", after, before)
	}
	for i, test := range aliasTests {
		for _, key := range test.rows {
			s.want("1", "DEL", fmt.Sprintf("json%d:%s", i, key))
		}
	}
	s.Settled()
	if after := rows(); len(after) > 0 {
		t.Errorf("rows are left: %q", after)
	}
}
