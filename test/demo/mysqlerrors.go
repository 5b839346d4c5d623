package main

import (
	"errors"
	"regexp"

	"github.com/dolthub/vitess/go/mysql"
)

// mysqlErrors gives errors of the engine the number and state they have in MySQL: it reports most of what is wrong with
// a row as 1105, "unknown error", and whoever looks at numbers would take it for a broken server.
var mysqlErrors = []struct {
	text  *regexp.Regexp
	num   int
	state string
}{
	{regexp.MustCompile(`is too large for column|is too long for column`), 1406, "22001"},
	{regexp.MustCompile(`(?i)out of range`), 1264, "22003"},
	{regexp.MustCompile(`doesn't have a default value`), 1364, "HY000"},
	{regexp.MustCompile(`Check constraint .* violated`), 3819, "HY000"},
	{regexp.MustCompile(`Incorrect (date|datetime|time|timestamp|year) value`), 1292, "22007"},
	{regexp.MustCompile(`not valid for this (Enum|Set)`), 1265, "01000"},
	{regexp.MustCompile(`Invalid JSON text`), 3140, "22032"},
	{regexp.MustCompile(`^syntax error`), 1064, "42000"},
	{regexp.MustCompile(`(?i)^unknown system variable`), 1193, "HY000"},
}

func asMySQL(err error) error {
	var e *mysql.SQLError
	if !errors.As(err, &e) || e.Num != mysql.ERUnknownError {
		return err
	}
	for _, known := range mysqlErrors {
		if known.text.MatchString(e.Message) {
			return &mysql.SQLError{Num: known.num, State: known.state, Message: e.Message, Query: e.Query}
		}
	}
	return err
}
