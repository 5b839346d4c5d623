package mapping

import "bytes"

// A node is one node of the tree of the patterns' first literals. Every key of every command is looked up in it, and
// most belong to no mapping: those are done with after the few bytes they share with a literal.
type node struct {
	text     []byte // follows the text of the parent
	mappings []*Mapping
	firsts   []byte // the first bytes of children, in their order
	children []*node
}

// insert adds m to the node that literal leads to from n.
func (n *node) insert(literal []byte, m *Mapping) {
	if literal = literal[n.split(literal):]; len(literal) == 0 {
		n.mappings = append(n.mappings, m)
		return
	}
	i := bytes.IndexByte(n.firsts, literal[0])
	if i < 0 {
		i = len(n.children)
		n.firsts = append(n.firsts, literal[0])
		n.children = append(n.children, &node{text: bytes.Clone(literal)})
	}
	n.children[i].insert(literal, m)
}

// split makes the text of n a prefix of literal, moving the rest of it to a child, and returns its length.
func (n *node) split(literal []byte) int {
	same := 0
	for same < len(n.text) && same < len(literal) && n.text[same] == literal[same] {
		same++
	}
	if same < len(n.text) {
		rest := *n
		rest.text = n.text[same:]
		*n = node{text: n.text[:same], firsts: []byte{rest.text[0]}, children: []*node{&rest}}
	}
	return same
}

// find returns the mapping whose pattern key matches, or nil. There is at most one, see [Validate].
func (n *node) find(key []byte) *Mapping {
	for rest := key; bytes.HasPrefix(rest, n.text); {
		rest = rest[len(n.text):]
		for _, m := range n.mappings {
			if m.pattern.match(key) {
				return m
			}
		}
		if len(rest) == 0 {
			return nil
		}
		i := bytes.IndexByte(n.firsts, rest[0])
		if i < 0 {
			return nil
		}
		n = n.children[i]
	}
	return nil
}
