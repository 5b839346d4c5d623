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
	Setting  string // the key of the mapping or query to change: "columns"
	Text     string // what is wrong with it and the way out
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s %q: %s: %s", f.Severity, f.Section(), f.Mapping, f.Setting, f.Text)
}

// Section is what the configuration calls what the finding is about: "mapping" or "query".
func (f Finding) Section() string {
	if f.Query {
		return "query"
	}
	return "mapping"
}

// findings collects what is found about one mapping or query.
type findings struct {
	name   string
	query  bool
	list   []Finding
	failed bool
}

func (f *findings) error(setting, format string, args ...any) {
	f.failed = true
	f.find(Error, setting, format, args)
}

func (f *findings) warn(setting, format string, args ...any) { f.find(Warning, setting, format, args) }

func (f *findings) find(s Severity, setting, format string, args []any) {
	f.list = append(f.list, Finding{f.name, f.query, s, setting, fmt.Sprintf(format, args...)})
}

// sorted is the list with errors before warnings.
func (f *findings) sorted() []Finding {
	slices.SortStableFunc(f.list, func(a, b Finding) int { return int(a.Severity) - int(b.Severity) })
	return f.list
}
