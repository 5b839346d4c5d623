package mapping

// A Kind is what the value of a key is in Redis, and what its values are: the arguments that make it, which is how
// images of any kind are handed on.
type Kind byte

// The kinds, with their values.
const (
	KindJSON   Kind = iota // a string, JSON: one value
	KindString             // a string, the plain text of one column: one value
	KindHash               // a hash: field, value, field, value, …
	KindList               // a list: its elements, from left to right
	KindSet                // a set: its members
	KindZset               // a sorted set: score, member, score, member, …
)

var kindNames = [...]string{KindJSON: "json", KindString: "string", KindHash: "hash", KindList: "list", KindSet: "set", KindZset: "zset"}

func (k Kind) String() string { return kindNames[k] }

// Text reports whether Redis keeps the kind as a string, which GET returns whole.
func (k Kind) Text() bool { return k <= KindString }

// kindOf is the kind of that name, which Validate has passed.
func kindOf(name string) Kind {
	for k, n := range kindNames {
		if n == name {
			return Kind(k)
		}
	}
	return KindJSON
}
