package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// maxVariables is what an index of MySQL can have in columns.
const maxVariables = 16

// A pattern says which keys a mapping has and where in them the values of the key columns stand:
//
//	literals[0] {variables[0]} literals[1] … {variables[n-1]} literals[n]
//
// Only literals[n] can be empty, and only if n > 0.
type pattern struct {
	str       string // as configured
	literals  [][]byte
	variables []string
	rest      int // the variable that takes what the others leave, see split
}

// parsePattern parses the key of a mapping. Its syntax is
//
//	pattern  = literal variable { literal variable } [ literal ]
//	variable = "{" column "}"
//	column   = one or more characters other than "{" and "}"
//	literal  = one or more of: any character other than "{" and "}", "{{" for one "{", "}}" for one "}"
//
// A pattern starts with literal text, so that it cannot claim every key there is, and has 1 to 16 variables, all
// different and never side by side. Errors start with the byte offset of what is wrong. That of a query may be literal
// text alone: see parseKey.
//
//	user:{id}
//	stock:{warehouse}:{article}
//	{{{tenant}}}:cart:{id}        keys like {acme}:cart:7
//
// A key matches if it consists of the literals in their order, with one or more bytes, of any value, for each
// variable. [pattern.split] tells which bytes are whose.
func parsePattern(s string) (*pattern, error) {
	p, err := parseKey(s)
	if err == nil && len(p.variables) == 0 {
		return nil, fmt.Errorf(`offset %d: no variable; name the key column, as "user:{id}"`, len(s))
	}
	return p, err
}

// parseKey is parsePattern for keys that need no variable.
func parseKey(s string) (_ *pattern, err error) {
	off := 0
	defer func() {
		if err != nil {
			err = fmt.Errorf("offset %d: %w", off, err)
		}
	}()
	if s == "" {
		return nil, errors.New(`empty; want literal text and {column}, as "user:{id}"`)
	}
	p := &pattern{str: s}
	var literal []byte
	for off < len(s) {
		c := s[off]
		switch {
		case c != '{' && c != '}':
			literal = append(literal, c)
			off++
		case off+1 < len(s) && s[off+1] == c:
			literal = append(literal, c)
			off += 2
		case c == '}':
			return nil, errors.New("a } without {; write }} for the character")
		default:
			name, _, closed := strings.Cut(s[off+1:], "}")
			switch {
			case !closed:
				return nil, errors.New("a { without }; write {{ for the character")
			case name == "":
				return nil, errors.New("an empty variable; want {column}")
			case strings.Contains(name, "{"):
				return nil, fmt.Errorf("{ in the variable %q; write {{ for the character", name)
			case len(literal) == 0 && len(p.variables) == 0:
				return nil, fmt.Errorf("starts with the variable {%s}; put literal text before it", name)
			case len(literal) == 0:
				return nil, fmt.Errorf("the variables {%s} and {%s} are adjacent; put literal text between them",
					p.variables[len(p.variables)-1], name)
			case len(p.variables) == maxVariables:
				return nil, fmt.Errorf("more than %d variables", maxVariables)
			}
			for _, v := range p.variables {
				if v == name {
					return nil, fmt.Errorf("the variable {%s} stands twice", name)
				}
			}
			p.literals = append(p.literals, bytes.Clone(literal))
			p.variables = append(p.variables, name)
			literal = literal[:0]
			off += len(name) + 2
		}
	}
	p.literals = append(p.literals, literal)
	p.rest = len(p.variables) - 1
	return p, nil
}

// match reports whether key has the literal shape of p.
func (p *pattern) match(key []byte) bool {
	n := len(p.variables)
	if n == 0 {
		return bytes.Equal(key, p.literals[0])
	}
	key, ok := p.inner(key)
	if !ok {
		return false
	}
	// The first place a literal can be at is the best one: what fits behind a later place fits behind it too.
	for _, literal := range p.literals[1:n] {
		if len(key) == 0 {
			return false
		}
		i := bytes.Index(key[1:], literal)
		if i < 0 {
			return false
		}
		key = key[1+i+len(literal):]
	}
	return len(key) > 0
}

// split cuts key into the texts of the variables, and fails if it does not match. There is one way only: each variable
// before the rest variable ends where the literal behind it is found first, each one after the rest variable starts where
// the literal before it is found last, none is empty, and the rest variable has what is left. So but for a byte at the
// outer end, only the text of the rest variable can contain the literals beside it.
func (p *pattern) split(texts *[maxVariables][]byte, key []byte) bool {
	if len(p.variables) == 0 {
		return bytes.Equal(key, p.literals[0])
	}
	key, ok := p.inner(key)
	if !ok {
		return false
	}
	for i := range p.rest {
		end := 1 + bytes.Index(key[1:], p.literals[i+1])
		if end == 0 || end+len(p.literals[i+1]) == len(key) {
			return false
		}
		texts[i], key = key[:end], key[end+len(p.literals[i+1]):]
	}
	for i := len(p.variables) - 1; i > p.rest; i-- {
		start := bytes.LastIndex(key[:len(key)-1], p.literals[i])
		if start <= 0 {
			return false
		}
		texts[i], key = key[start+len(p.literals[i]):], key[:start]
	}
	texts[p.rest] = key
	return true
}

// inner cuts the first and the last literal off key.
func (p *pattern) inner(key []byte) ([]byte, bool) {
	first, last := p.literals[0], p.literals[len(p.variables)]
	if len(key) <= len(first)+len(last) || !bytes.HasPrefix(key, first) || !bytes.HasSuffix(key, last) {
		return nil, false
	}
	return key[len(first) : len(key)-len(last)], true
}
