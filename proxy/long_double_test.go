package proxy

import (
	"errors"
	"strings"
	"testing"
)

func TestAddLongDouble(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		old, by, sum string
		err          error
	}{
		{"0.1", "0.2", "0.3", nil},
		{"10.50", "0.1", "10.6", nil},
		{"5.0e3", "2.0e2", "5200", nil},
		{"1", "-1", "0", nil},
		{"0", "-1e-18", "0", nil},
		{"0", "-1e-17", "-0.00000000000000001", nil},
		{"+.5", "1.", "1.5", nil},
		{"0x10", "0X1.8p1", "19", nil},
		{"9223372036854775807", "1", "9223372036854775808", nil},
		{"18446744073709551615", "2", "18446744073709551616", nil}, // ties go to even
		{"0.1", "1e18", "1000000000000000000.125", nil},
		{"0e999999999999", "1", "1", nil},
		{"1e-4900", "1", "1", nil},
		{"1e4932", "1e4932", "", errNaN},
		{"1", "inf", "", errNaN},
		{"1", "-Infinity", "", errNaN},
		{"inf", "-inf", "", errNaN},
		{"x", "inf", "", errFloat},
		{"1", "nan", "", errFloat},
		{"1", "", "", errFloat},
		{"1", " 1", "", errFloat},
		{"1", "1 ", "", errFloat},
		{"1", "1_0", "", errFloat},
		{"1", "1/2", "", errFloat},
		{"1", "0b1", "", errFloat},
		{"1", "1p3", "", errFloat},
		{"1", "1e", "", errFloat},
		{"1", ".", "", errFloat},
		{"1", "1e4933", "", errFloat},
		{"1", "1e-4980", "", errFloat},
		{"1", "1e999999999999", "", errFloat},
		{"1", strings.Repeat("1", 5*1024), "", errFloat},
	} {
		sum, err := addLongDouble([]byte(test.old), []byte(test.by))
		if string(sum) != test.sum || !errors.Is(err, test.err) {
			t.Errorf("%s + %.40s is %q, %v; want %q, %v", test.old, test.by, sum, err, test.sum, test.err)
		}
	}
	if sum, err := addLongDouble(nil, []byte("2.50")); string(sum) != "2.5" || err != nil {
		t.Errorf("2.50 alone is %q, %v", sum, err)
	}
}
