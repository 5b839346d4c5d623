//go:build compat

package compat

import (
	"regexp"
	"slices"
	"strings"
)

// normalisers change what two servers answer differently for good reason: a reply that names a connection, a time, an
// address or a random choice. A step that needs one says so, all other replies are compared byte for byte.
var normalisers = map[string]func([]byte) string{
	// Ids of clients, times, ages, byte counts of memory: integers (and doubles) anywhere in the reply.
	"int": tree(func(n *node) {
		if n.kind == ':' || n.kind == ',' {
			n.head = "N"
		}
	}),
	// The same in bulks and statuses: stream ids made from the time, TIME, PSYNC.
	"digits": tree(func(n *node) { n.head = number.ReplaceAllString(n.head, "N") }),
	// Both: MEMORY STATS.
	"numbers": tree(func(n *node) {
		if n.kind == ':' || n.kind == ',' || fraction.MatchString(n.head) {
			n.head = "N"
		}
	}),
	// Random hexadecimal names: ACL GENPASS, node and replication ids. Their length is kept.
	"hex": tree(func(n *node) {
		n.head = hexName.ReplaceAllStringFunc(n.head, func(s string) string { return strings.Repeat("x", len(s)) })
	}),
	// The order of what comes out of a hash table, whose seed is random.
	"sort": tree(func(n *node) { sortItems(n) }),
	// The same for maps: pairs stay together.
	"pairs": func(b []byte) string {
		n := parse(b)
		var pairs []string
		for i := 0; i+1 < len(n.items); i += 2 {
			pairs = append(pairs, n.items[i].text()+" "+n.items[i+1].text())
		}
		slices.Sort(pairs)
		return string(n.kind) + "[" + strings.Join(pairs, " ") + "]"
	},
	// UNSUBSCRIBE without arguments goes through the channels in the order of a hash table.
	"channel": func(b []byte) string {
		n := parse(b)
		if len(n.items) > 1 {
			n.items[1].head = "*"
		}
		return n.text()
	},
	// What a server says of itself: INFO, MEMORY, LATENCY reports keep the names of their fields.
	"info": tree(func(n *node) {
		if n.kind == '$' || n.kind == '=' {
			n.head = infoValue.ReplaceAllString(n.head, "$1:")
		}
	}),
	// Lines of CLIENT LIST and the like keep what the client has set up, not which connection it is and how busy.
	"client": tree(func(n *node) { n.head = clientField.ReplaceAllString(n.head, "$1=*") }),
	// A report in words about the server's memory.
	"words": tree(func(n *node) {
		if n.kind == '$' || n.kind == '=' {
			n.head = "words"
		}
	}),
	// Text of an error that names a position in a random order, or the reply of a command of which only its kind is
	// the same everywhere.
	"kind": func(b []byte) string { return string(b[0]) },
	// MONITOR: when it was, and from where.
	"monitor": tree(func(n *node) { n.head = monitored.ReplaceAllString(n.head, "T [$1 ADDR]") }),
}

var (
	fraction    = regexp.MustCompile(`^[\d.]+$`)
	number      = regexp.MustCompile(`\d+`)
	hexName     = regexp.MustCompile(`\b[0-9a-f]{16,64}\b`)
	infoValue   = regexp.MustCompile(`(?m)^([a-z_0-9A-Z.]+):[^\r\n]*`)
	clientField = regexp.MustCompile(`\b(id|addr|laddr|fd|age|idle|qbuf|qbuf-free|argv-mem|multi-mem|rbs|rbp|obl|oll|omem|tot-mem|events|cmd|redir)=\S*`)
	monitored   = regexp.MustCompile(`^[\d.]+ \[(\d+) \S+\]`)
)

// tree applies f to every node of a reply, children first.
func tree(f func(*node)) func([]byte) string {
	var walk func(n *node)
	walk = func(n *node) {
		for i := range n.items {
			walk(&n.items[i])
		}
		f(n)
	}
	return func(b []byte) string {
		n := parse(b)
		walk(&n)
		return n.text()
	}
}

func sortItems(n *node) {
	texts := map[*node]string{}
	items := make([]*node, len(n.items))
	for i := range n.items {
		items[i] = &n.items[i]
		texts[items[i]] = n.items[i].text()
	}
	slices.SortFunc(items, func(a, b *node) int { return strings.Compare(texts[a], texts[b]) })
	sorted := make([]node, len(items))
	for i, item := range items {
		sorted[i] = *item
	}
	n.items = sorted
}
