package mapping

import "fmt"

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

// A Finding is something about a mapping that does not go well with the table it names.
type Finding struct {
	Mapping  string
	Severity Severity
	Setting  string // the key of the mapping to change: "columns"
	Text     string // what is wrong with it and the way out
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: mapping %q: %s: %s", f.Severity, f.Mapping, f.Setting, f.Text)
}
