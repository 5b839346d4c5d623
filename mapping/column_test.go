package mapping

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func repeat(s string, n int) string { return strings.Repeat(s, n) }

// TestValues: what a client may write, the image it becomes, and the SQL argument of it. A want that starts with ! is
// a part of the error.
func TestValues(t *testing.T) {
	for _, test := range []struct {
		columnType, in, want string
		arg                  any
	}{
		{"int(11)", `42`, `42`, int64(42)},
		{"int(11)", `-2147483648`, `-2147483648`, int64(-2147483648)},
		{"int(11)", `2147483648`, `!2147483648" is out of range, want -2147483648 to 2147483647`, nil},
		{"int(11)", `1e3`, `1000`, int64(1000)},
		{"int(11)", `12.0`, `12`, int64(12)},
		{"int(11)", `1.5`, `!not a whole number`, nil},
		{"int(11)", `1e-1`, `!not a whole number`, nil},
		{"int(11)", `1e999999999999`, `!out of range`, nil},
		{"int(11)", `0e999999999999`, `0`, int64(0)},
		{"int(11)", `-0`, `0`, int64(0)},
		{"int(11)", `"42"`, `!a string, want a whole number`, nil},
		{"int(11)", `true`, `!true, want a whole number`, nil},
		{"int(11)", `[1]`, `!an array, want a whole number`, nil},
		{"int(11)", `1` + repeat("0", 200), `!out of range`, nil},
		{"int(11)", `1` + repeat("1", 200), `!out of range`, nil},
		{"int(11)", `null`, `null`, nil},
		{"tinyint(1)", `true`, `1`, int64(1)},
		{"tinyint(1)", `false`, `0`, int64(0)},
		{"tinyint(1)", `-128`, `-128`, int64(-128)},
		{"tinyint(4)", `true`, `!true, want a whole number`, nil},
		{"tinyint(3) unsigned", `255`, `255`, int64(255)},
		{"tinyint(3) unsigned", `-1`, `!out of range, want 0 to 255`, nil},
		{"mediumint(9)", `8388608`, `!out of range, want -8388608 to 8388607`, nil},
		{"bigint(20)", `-9223372036854775808`, `-9223372036854775808`, int64(math.MinInt64)},
		{"bigint(20)", `9223372036854775808`, `!out of range`, nil},
		{"bigint(20) unsigned", `18446744073709551615`, `18446744073709551615`, uint64(math.MaxUint64)},
		{"bigint(20) unsigned", `18446744073709551616`, `!out of range`, nil},
		{"year(4)", `2024`, `2024`, int64(2024)},
		{"year(4)", `0`, `0`, int64(0)},
		{"year(4)", `24`, `!out of range, want 0 or 1901 to 2155`, nil},
		{"bit(3)", `7`, `7`, int64(7)},
		{"bit(3)", `8`, `!out of range, want 0 to 7`, nil},
		{"bit(64)", `18446744073709551615`, `18446744073709551615`, uint64(math.MaxUint64)},

		{"decimal(10,2)", `1.5`, `1.50`, "1.50"},
		{"decimal(10,2)", `-12345678.99`, `-12345678.99`, "-12345678.99"},
		{"decimal(10,2)", `123456789`, `!has 9 digits before the point, at most 8`, nil},
		{"decimal(10,2)", `1.505`, `!has 3 fraction digits, at most 2`, nil},
		{"decimal(10,2)", `1.50000`, `1.50`, "1.50"},
		{"decimal(10,2)", `15e-1`, `1.50`, "1.50"},
		{"decimal(10,2)", `1e-3`, `!has 3 fraction digits`, nil},
		{"decimal(10,2)", `1e5`, `100000.00`, "100000.00"},
		{"decimal(10,2)", `-0.00`, `0.00`, "0.00"},
		{"decimal(10,2)", `0.01`, `0.01`, "0.01"},
		{"decimal(10,2)", `"1.5"`, `!a string, want a number`, nil},
		{"decimal(10,2)", `1` + repeat("1", 100), `!more than 80 digits, at most 10 fit`, nil},
		{"decimal(10,0)", `12`, `12`, "12"},
		{"decimal(2,2)", `0.25`, `0.25`, "0.25"},
		{"decimal(2,2)", `1`, `!digits before the point`, nil},
		{"decimal(65,30)", repeat("9", 35) + "." + repeat("9", 30), repeat("9", 35) + "." + repeat("9", 30), repeat("9", 35) + "." + repeat("9", 30)},
		{"decimal(10,2) unsigned", `-1`, `!negative`, nil},

		{"double", `0.1`, `0.1`, "0.1"},
		{"double", `1e400`, `!out of the range of double`, nil},
		{"double", `-0.0`, `0`, "0"},
		{"double", `1e-400`, `0`, "0"},
		{"double", `1E21`, `1e+21`, "1e+21"},
		{"double", `123456789012345678`, `123456789012345680`, "123456789012345680"},
		{"double", `5e-324`, `5e-324`, "5e-324"},
		{"double unsigned", `-1`, `!negative`, nil},
		{"float", `0.1`, `0.1`, "0.1"},
		{"float", `16777217`, `16777216`, "16777216"},
		{"float", `3.4028235e38`, `3.4028234663852886e+38`, "3.4028234663852886e+38"},
		{"float", `3.41e38`, `!out of the range of float`, nil},

		{"varchar(3)", `"abc"`, `"abc"`, "abc"},
		{"varchar(3)", `"abcd"`, `!4 characters, at most 3`, nil},
		{"varchar(3)", `"ab  "`, `!4 characters, at most 3`, nil},
		{"varchar(3)", `"é😀x"`, `"é😀x"`, "é😀x"},
		{"varchar(3)", `""`, `""`, ""},
		{"varchar(3)", `"\u00e9\u0000\/"`, `"é\u0000/"`, "é\x00/"},
		{"varchar(9)", `"\"\\\n\t\u001f\u007f\u2028<"`, `"\"\\\n\t\u001f` + "\x7f\u2028" + `<"`, "\"\\\n\t\x1f\x7f\u2028<"},
		{"varchar(3)", `"\ud83d\ude00"`, `"😀"`, "😀"},
		{"varchar(3)", `"\ud83d"`, `!lone surrogate`, nil},
		{"varchar(3)", `"\ude00"`, `!lone surrogate`, nil},
		{"varchar(3)", `"\ud83d\u0041"`, `!lone surrogate`, nil},
		{"varchar(3)", "\"\xff\"", `!not valid UTF-8`, nil},
		{"varchar(3)", `1`, `!a number, want a string`, nil},
		{"varchar(3) charset=latin1", `"é€Ÿ"`, `"é€Ÿ"`, "é€Ÿ"},
		{"varchar(3) charset=latin1", `"ł"`, `!'ł' (U+0142) is not in the charset latin1`, nil},
		{"varchar(3) charset=ascii", `"é"`, `!not in the charset ascii`, nil},
		{"varchar(3) charset=utf8mb3", `"😀"`, `!not in the charset utf8mb3`, nil},
		{"char(3)", `"ab   "`, `"ab"`, "ab"},
		{"char(3)", `"abc "`, `"abc"`, "abc"},
		{"char(3)", `"   "`, `""`, ""},
		{"char(3)", `"a b\u0020"`, `"a b"`, "a b"},
		{"tinytext", `"` + repeat("é", 128) + `"`, `!256 bytes, at most 255`, nil},
		{"tinytext charset=latin1", `"` + repeat("é", 255) + `"`, `"` + repeat("é", 255) + `"`, repeat("é", 255)},
		{"tinytext charset=utf16", `"` + repeat("a", 128) + `"`, `!256 bytes, at most 255`, nil},
		{"enum('a','b''c','d\\\\e')", `"b'c"`, `"b'c"`, "b'c"},
		{"enum('a','b''c','d\\\\e')", `"d\\e"`, `"d\\e"`, `d\e`},
		{"enum('a','b''c','d\\\\e')", `"A"`, `!"A" is not a member of enum('a'`, nil},
		{"enum('a','b')", `""`, `!"" is not a member`, nil},
		{"enum('a','b')", `1`, `!a number, want a string`, nil},
		{"enum('a?','b')", `"a😀"`, `"a😀"`, "a😀"},
		{"enum('a?','b')", `"a?"`, `"a?"`, "a?"},
		{"enum('a?','b')", `"aé"`, `!"aé" is not a member`, nil},
		{"enum('a?','b') charset=latin1", `"a😀"`, `!is not a member`, nil},
		{"set('a','b','c')", `"c,a"`, `"a,c"`, "a,c"},
		{"set('a','?')", `"😀,a"`, `"a,😀"`, "a,😀"},
		{"set('a','?') charset=utf8mb3", `"😀,a"`, `!"😀" is not a member`, nil},
		{"set('a','b','c')", `""`, `""`, ""},
		{"set('a','b','c')", `"a,"`, `!"" is not a member`, nil},
		{"set('a','b','c')", `",a"`, `!"" is not a member`, nil},
		{"set('a','b','c')", `"a,d"`, `!"d" is not a member`, nil},

		{"varbinary(4)", `"AP8="`, `"AP8="`, []byte{0, 255}},
		{"varbinary(4)", `"AAAAAAA="`, `!5 bytes, at most 4`, nil},
		{"varbinary(4)", `"AP9="`, `!is not base64`, nil},
		{"varbinary(4)", `"AP8"`, `!is not base64`, nil},
		{"varbinary(4)", `"AP\n8="`, `!is not base64`, nil},
		{"varbinary(4)", `""`, `""`, []byte{}},
		{"binary(4)", `"AP8="`, `"AP8AAA=="`, []byte{0, 255, 0, 0}},
		{"blob", `"YWJj"`, `"YWJj"`, []byte("abc")},

		{"date", `"2024-02-29"`, `"2024-02-29"`, "2024-02-29"},
		{"date", `"2023-02-29"`, `!is not a date, want YYYY-MM-DD`, nil},
		{"date", `"0000-00-00"`, `"0000-00-00"`, "0000-00-00"},
		{"date", `"2024-13-01"`, `!is not a date`, nil},
		{"date", `"2024-1-01"`, `!is not a date`, nil},
		{"date", `"2024-01-01 00:00:00"`, `!is not a date`, nil},
		{"date", `20240101`, `!a number, want a string`, nil},
		{"datetime", `"2024-01-01 23:59:59"`, `"2024-01-01 23:59:59"`, "2024-01-01 23:59:59"},
		{"datetime", `"2024-01-01T23:59:59"`, `!want YYYY-MM-DD HH:MM:SS`, nil},
		{"datetime", `"2024-01-01 24:00:00"`, `!want YYYY-MM-DD HH:MM:SS`, nil},
		{"datetime", `"2024-01-01 00:00:60"`, `!want YYYY-MM-DD HH:MM:SS`, nil},
		{"datetime", `"2024-01-01 00:00:00.5"`, `!has 1 digits in the fraction of the second, at most 0`, nil},
		{"datetime", `"2024-01-01 00:00:00."`, `!bad fraction`, nil},
		{"datetime", `"2024-01-01 00:00:00Z"`, `!bad fraction`, nil},
		{"datetime(3)", `"2024-01-01 00:00:00.5"`, `"2024-01-01 00:00:00.500"`, "2024-01-01 00:00:00.500"},
		{"datetime(3)", `"2024-01-01 00:00:00.1230000"`, `"2024-01-01 00:00:00.123"`, "2024-01-01 00:00:00.123"},
		{"timestamp", `"1970-01-01 00:00:00"`, `!out of the range of timestamp`, nil},
		{"timestamp", `"1970-01-01 00:00:01"`, `"1970-01-01 00:00:01"`, "1970-01-01 00:00:01"},
		{"timestamp", `"2038-01-19 03:14:08"`, `!out of the range of timestamp`, nil},
		{"timestamp", `"2024-00-10 00:00:00"`, `!out of the range of timestamp`, nil},
		{"timestamp(1)", `"0000-00-00 00:00:00"`, `"0000-00-00 00:00:00.0"`, "0000-00-00 00:00:00.0"},
		{"timestamp(1)", `"0000-00-00 00:00:00.1"`, `!out of the range of timestamp`, nil},
		{"time", `"08:00:00"`, `"08:00:00"`, "08:00:00"},
		{"time", `"008:00:00"`, `"08:00:00"`, "08:00:00"},
		{"time", `"-838:59:59"`, `"-838:59:59"`, "-838:59:59"},
		{"time", `"839:00:00"`, `!out of the range of time`, nil},
		{"time(1)", `"838:59:59.5"`, `!out of the range of time`, nil},
		{"time(1)", `"838:59:58.5"`, `"838:59:58.5"`, "838:59:58.5"},
		{"time", `"-00:00:00"`, `"00:00:00"`, "00:00:00"},
		{"time", `"8:00:00"`, `!is not a time`, nil},
		{"time", `"-8:00:00"`, `!is not a time`, nil},
		{"time", `"08:00"`, `!is not a time`, nil},

		{"json", `{"a": [1, 2.50], "a":"x"}`, `{"a": [1, 2.50], "a":"x"}`, `{"a": [1, 2.50], "a":"x"}`},
		{"mariajson", `[]`, `[]`, `[]`},
		{"mariajson", `"x"`, `"x"`, `"x"`},
		{"mariajson", `true`, `true`, `true`},
		{"mariajson", repeat("[", 31) + repeat("]", 31), repeat("[", 31) + repeat("]", 31), repeat("[", 31) + repeat("]", 31)},
		{"mariajson", repeat("[", 32) + repeat("]", 32), `!a document of 32 levels, at most 31`, nil},
		{"json", repeat("[", 101) + repeat("]", 101), `!nested more than`, nil},

		{"uuid", `"123E4567-e89b-12d3-a456-426614174000"`, `"123e4567-e89b-12d3-a456-426614174000"`, "123e4567-e89b-12d3-a456-426614174000"},
		{"uuid", `"123e4567e89b-12d3-a456-4266141740000"`, `!is not a uuid`, nil},
		{"uuid", `""`, `!is not a uuid`, nil},
		{"inet4", `"10.0.0.1"`, `"10.0.0.1"`, "10.0.0.1"},
		{"inet4", `"::1"`, `!is not an address of type inet4`, nil},
		{"inet6", `"2001:DB8:0:1:1:1:1:0"`, `"2001:db8::1:1:1:1:0"`, "2001:db8::1:1:1:1:0"},
		{"inet6", `"::ffff:10.0.0.1"`, `"::ffff:10.0.0.1"`, "::ffff:10.0.0.1"},
		{"inet6", `"fe80::1%eth0"`, `!is not an address`, nil},
	} {
		m := one(t, test.columnType)
		key, value := []byte("user:1"), []byte(`{"v":`+test.in+`}`)
		before := []byte("before")
		got, err := m.Canonical(before, key, value)
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) || string(got) != "before" {
				t.Errorf("%s %s: got %s, %v; want the error %s", test.columnType, test.in, got, err, want)
			}
			continue
		}
		if want := `before{"id":1,"v":` + test.want + `}`; err != nil || string(got) != want {
			t.Errorf("%s %s: got %s, %v; want %s", test.columnType, test.in, got, err, want)
			continue
		}
		row, err := m.Row(nil, key, got[len("before"):])
		if err != nil || fmt.Sprintf("%#v", row) != fmt.Sprintf("%#v", []any{int64(1), test.arg}) {
			t.Errorf("%s %s: row %#v, %v; want %#v", test.columnType, test.in, row, err, test.arg)
		}
	}
}

// TestImageText: what MySQL's text becomes.
func TestImageText(t *testing.T) {
	for _, test := range []struct{ columnType, text, want string }{
		{"int(10) unsigned zerofill", "0000000042", "42"},
		{"int(10) unsigned zerofill", "0000000000", "0"},
		{"decimal(8,2) unsigned zerofill", "000001.50", "1.50"},
		{"decimal(10,2)", "-1.50", "-1.50"},
		{"year(4)", "0000", "0"},
		{"float", "0.10000000149011612", "0.1"},
		{"double", "1.7976931348623157e308", "1.7976931348623157e+308"},
		{"double", "-0", "0"},
		{"text", "a\x00\"\\é", `"a\u0000\"\\é"`},
		{"text", "\xff", "!not valid UTF-8"},
		{"varbinary(9)", "\xff", `"/w=="`},
		{"enum('a')", "", `""`},
		{"time(1)", "838:59:59.9", `"838:59:59.9"`},
		{"mariajson", "\n {\"a\" : 1} ", `{"a" : 1}`},
		{"mariajson", "1.", "!not valid JSON"},
	} {
		m := one(t, test.columnType)
		row := [][]byte{[]byte("1"), []byte("1"), []byte(test.text)}
		got, err := m.Image([]byte("before"), row)
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) || string(got) != "before" {
				t.Errorf("%s %q: got %s, %v; want the error %s", test.columnType, test.text, got, err, want)
			}
		} else if want := `before{"id":1,"v":` + test.want + `}`; err != nil || string(got) != want {
			t.Errorf("%s %q: got %s, %v; want %s", test.columnType, test.text, got, err, want)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, test := range []struct {
		columnType, text, refusal string // refusal: empty if the key can name a row
		arg                       any
	}{
		{"int(11)", "42", "", int64(42)},
		{"int(11)", "-7", "", int64(-7)},
		{"int(11)", "01", `"01" in a key is spelled 1`, nil},
		{"int(11)", "+1", `"+1" in a key is spelled 1`, nil},
		{"int(11)", "1.0", `in a key is spelled 1`, nil},
		{"int(11)", "1e3", `in a key is spelled 1000`, nil},
		{"int(11)", "-0", `in a key is spelled 0`, nil},
		{"int(11)", " 1", "not a whole number", nil},
		{"int(11)", "1 ", "not a whole number", nil},
		{"int(11)", "abc", "not a whole number", nil},
		{"int(11)", "2147483648", "out of range", nil},
		{"int(10) unsigned zerofill", "0000000042", "in a key is spelled 42", nil},
		{"bigint(20) unsigned", "18446744073709551615", "", uint64(math.MaxUint64)},
		{"tinyint(1)", "true", "not a whole number", nil},
		{"decimal(10,2)", "1.50", "", "1.50"},
		{"decimal(10,2)", "1.5", `in a key is spelled 1.50`, nil},
		{"decimal(18,0)", "999999999999999999", "", int64(999999999999999999)},
		{"varchar(5)", "Bob", "", "Bob"},
		{"varchar(5)", "Bob ", "", "Bob "},
		{"varchar(5)", "Bobbob", "6 characters, at most 5", nil},
		{"varchar(5)", "\xff", "not valid UTF-8", nil},
		{"varchar(5) charset=ascii", "é", "not in the charset ascii", nil},
		{"char(5)", "Bob ", "ends in a space", nil},
		{"enum('a','b')", "b", "", "b"},
		{"enum('a','b')", "B", "not a member", nil},
		{"varbinary(3)", "\xff\x00", "", []byte{255, 0}},
		{"varbinary(3)", "1234", "4 bytes, at most 3", nil},
		{"binary(3)", "12", "2 bytes, want all 3", nil},
		{"date", "2024-01-01", "", "2024-01-01"},
		{"date", "2024-1-1", "not a date", nil},
		{"datetime(3)", "2024-01-01 00:00:00.120", "", "2024-01-01 00:00:00.120"},
		{"datetime(3)", "2024-01-01 00:00:00.12", "is spelled 2024-01-01 00:00:00.120", nil},
		{"uuid", "123e4567-e89b-12d3-a456-426614174000", "", "123e4567-e89b-12d3-a456-426614174000"},
		{"uuid", "123E4567-e89b-12d3-a456-426614174000", "is spelled 123e4567", nil},
		{"inet6", "0:0:0:0:0:0:0:1", "is spelled ::1", nil},
	} {
		m := keyed(t, test.columnType)
		key := []byte("user:" + test.text)
		args, err := m.KeyArgs(nil, key)
		refusal := m.Refusal(key)
		if m.Names(key) != (test.refusal == "") || (err == nil) != (test.refusal == "") || (refusal == nil) != (test.refusal == "") {
			t.Errorf("%s %q: names %v, %v, %v", test.columnType, test.text, m.Names(key), err, refusal)
			continue
		}
		if test.refusal != "" {
			if !strings.Contains(refusal.Error(), test.refusal) || !strings.Contains(refusal.Error(), `column "k"`) {
				t.Errorf("%s %q: %v", test.columnType, test.text, refusal)
			}
			continue
		}
		if got, want := fmt.Sprintf("%#v", args), fmt.Sprintf("%#v", []any{test.arg}); got != want {
			t.Errorf("%s %q: args %s, want %s", test.columnType, test.text, got, want)
		}
		if got := m.RowKey([]byte("x"), [][]byte{[]byte(test.text), nil, nil}); string(got) != "x"+string(key) {
			t.Errorf("%s %q: row key %q", test.columnType, test.text, got)
		}
	}
	m := keyed(t, "int(10) unsigned zerofill")
	if got := m.RowKey(nil, [][]byte{[]byte("0000000042")}); string(got) != "user:42" {
		t.Errorf("zerofill: %s", got)
	}
}
