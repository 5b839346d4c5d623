package mapping

import (
	"fmt"
	"slices"
)

// A Severity tells whether keyrow can serve a mapping in spite of a [Finding].
type Severity int

// What a finding may be.
const (
	Error   Severity = iota // it cannot
	Warning                 // it can, with what the finding says
)

func (s Severity) String() string {
	if s == Error {
		return "error"
	}
	return "warning"
}

// A Finding is something about a mapping or a query that does not go well with the tables it names.
type Finding struct {
	Mapping  string // its name
	Query    bool   // it is a query
	Severity Severity
	Text     string // the line of it to change, as `columns: …`, what is wrong with it and the way out
}

func (f Finding) String() string {
	section := "mapping"
	if f.Query {
		section = "query"
	}
	return fmt.Sprintf("%s: %s %q: %s", f.Severity, section, f.Mapping, f.Text)
}

// findings collects what is found about one mapping or query.
type findings struct {
	name   string
	query  bool
	list   []Finding
	failed bool
}

func (f *findings) error(line, format string, args ...any) {
	f.failed = true
	f.find(Error, line, format, args)
}

func (f *findings) warn(line, format string, args ...any) { f.find(Warning, line, format, args) }

func (f *findings) find(s Severity, line, format string, args []any) {
	f.list = append(f.list, Finding{f.name, f.query, s, line + ": " + fmt.Sprintf(format, args...)})
}

// sorted is the list with errors before warnings.
func (f *findings) sorted() []Finding {
	slices.SortStableFunc(f.list, func(a, b Finding) int { return int(a.Severity) - int(b.Severity) })
	return f.list
}
