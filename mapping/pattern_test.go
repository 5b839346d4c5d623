package mapping

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	for _, test := range []struct {
		in       string
		literals []string
		vars     []string
	}{
		{"user:{id}", []string{"user:", ""}, []string{"id"}},
		{"stock:{warehouse}:{article}", []string{"stock:", ":", ""}, []string{"warehouse", "article"}},
		{"u{id}.json", []string{"u", ".json"}, []string{"id"}},
		{"{{{tenant}}}:cart:{id}", []string{"{", "}:cart:", ""}, []string{"tenant", "id"}},
		{"a}}b{{{x y}", []string{"a}b{", ""}, []string{"x y"}},
		{"é{ü}ß", []string{"é", "ß"}, []string{"ü"}},
	} {
		p, err := parsePattern(test.in)
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		var literals []string
		for _, l := range p.literals {
			literals = append(literals, string(l))
		}
		if !slices.Equal(literals, test.literals) || !slices.Equal(p.variables, test.vars) {
			t.Errorf("%q: got %q %q, want %q %q", test.in, literals, p.variables, test.literals, test.vars)
		}
	}
}

func TestParsePatternErrors(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", "offset 0: empty"},
		{"user", "offset 4: no variable"},
		{"{id}", "offset 0: starts with the variable {id}"},
		{"user:{id", "offset 5: a { without }"},
		{"user:{", "offset 5: a { without }"},
		{"user:id}", "offset 7: a } without {"},
		{"user:{}", "offset 5: an empty variable"},
		{"user:{a{b}", "offset 5: { in the variable"},
		{"user:{a}{b}", "offset 8: the variables {a} and {b} are adjacent"},
		{"user:{a}:{a}", "offset 9: the variable {a} stands twice"},
		{"k:{a}:{b}:{c}:{d}:{e}:{f}:{g}:{h}:{i}:{j}:{k}:{l}:{m}:{n}:{o}:{p}:{q}", "offset 66: more than 16 variables"},
	} {
		if _, err := parsePattern(test.in); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%q: got %v, want %s…", test.in, err, test.want)
		}
	}
}

func TestPatternSplit(t *testing.T) {
	const noMatch = "no match"
	for _, test := range []struct {
		pattern string
		rest    int // -1: the last
		key     string
		want    string // the texts, with | between them
	}{
		{"user:{id}", -1, "user:42", "42"},
		{"user:{id}", -1, "user:a:b", "a:b"},
		{"user:{id}", -1, "user:", noMatch},
		{"user:{id}", -1, "user", noMatch},
		{"user:{id}", -1, "user;42", noMatch},
		{"user:{id}", -1, "xuser:42", noMatch},
		{"u{id}.json", -1, "u1.json", "1"},
		{"u{id}.json", -1, "u.json.json", ".json"},
		{"u{id}.json", -1, "u.json", noMatch},
		{"u{id}.json", -1, "u1.jsonx", noMatch},
		{"k:{a}:{b}", -1, "k:1:2", "1|2"},
		{"k:{a}:{b}", -1, "k:1:2:3", "1|2:3"},
		{"k:{a}:{b}", 0, "k:1:2:3", "1:2|3"},
		{"k:{a}:{b}", -1, "k:1", noMatch},
		{"k:{a}:{b}", -1, "k:1:", noMatch},
		{"k:{a}:{b}", -1, "k::1", noMatch},
		{"k:{a}:{b}", -1, "k::1:2", ":1|2"},
		{"k:{a}:{b}", -1, "k:::", noMatch},
		{"k:{a}:{b}", -1, "k::::", ":|:"},
		{"k:{a}:{b}", 0, "k:1::", "1|:"},
		{"k:{a}:{b}", 0, "k:::1", ":|1"},
		{"k:{a}:{b}:{c}", 1, "k:1:2:3:4:5", "1|2:3:4|5"},
		{"k:{a}::{b}", -1, "k:1:::2", "1|:2"},
		{"k:{a}:x", -1, "k:1:x:x", "1:x"},
		{"k{a}ab{b}", -1, "kaab1", "a|1"},
		{"k{a}ab{b}", -1, "kab1", noMatch},
		{"k{a}-{b}-k", -1, "k1-2-k", "1|2"},
		{"k{a}-{b}-k", -1, "k1-k", noMatch},
		{"{{{a}}}{b}", -1, "{x}y", "x|y"},
	} {
		p, err := parsePattern(test.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if test.rest >= 0 {
			p.rest = test.rest
		}
		got := noMatch
		var texts [maxVariables][]byte
		if p.split(&texts, []byte(test.key)) {
			got = string(bytes.Join(texts[:len(p.variables)], []byte("|")))
		}
		if p.match([]byte(test.key)) != (got != noMatch) {
			t.Errorf("%s and %s: split gives %s, match differs", test.key, test.pattern, got)
		}
		if got != test.want {
			t.Errorf("%s of %s: got %s, want %s", test.key, test.pattern, got, test.want)
		}
	}
}

func TestPatternConflict(t *testing.T) {
	for _, test := range []struct{ a, b, example string }{
		{"user:{id}", "user:{name}", "user:1"},
		{"user:{id}", "users:{id}", ""},
		{"user:{id}", "user:{id}:posts", "user:1:posts"},
		{"a:{x}", "a:{x}:{y}", "a:1:1"},
		{"a:{x}:b", "a:b:{x}", "a:b:b"},
		{"a{x}c", "ab{y}", "abc"},
		{"a{x}c", "ab{y}d", ""},
		{"a{x}aa{y}", "aa{x}a", "aaaaa"},
		{"k{x}.json", "k{x}.xml", ""},
		{"k:{a}:{b}", "k:{a}.{b}", "k:1:.1"},
	} {
		p, err1 := parsePattern(test.a)
		q, err2 := parsePattern(test.b)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		for _, pair := range [][2]*pattern{{p, q}, {q, p}} {
			example, both := pair[0].conflict(pair[1])
			if both != (test.example != "") {
				t.Errorf("%s and %s: conflict %v", pair[0].str, pair[1].str, both)
			}
			if both && (!p.match([]byte(example)) || !q.match([]byte(example)) || len(example) != len(test.example)) {
				t.Errorf("%s and %s: example %q, want one like %q", pair[0].str, pair[1].str, example, test.example)
			}
		}
	}
}

// FuzzPattern holds what parsePattern, match, split and conflict promise against each other.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][3]string{
		{"user:{id}", "user:{id}:x", "user:42"},
		{"stock:{a}:{b}", "s{a}", "stock:1:2"},
		{"{{{a}}}{b}", "{{x{a}", "{x}y"},
		{"a{x}aa{y}", "aa{x}a", "aaaaa"},
		{"k:{a}::{b}", "k:{a}:{b}", "k:1:::2"},
	} {
		f.Add(seed[0], seed[1], []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, s, other string, key []byte) {
		p, err := parsePattern(s)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "offset ") {
				t.Fatalf("%q: no offset in %v", s, err)
			}
			return
		}
		if again, err := parsePattern(p.write()); err != nil || again.write() != p.write() {
			t.Fatalf("%q is written %q, which gives %v", s, p.write(), err)
		}
		var texts [maxVariables][]byte
		for p.rest = range p.variables {
			split := p.split(&texts, key)
			if split != p.match(key) {
				t.Fatalf("%q splits %q: %v, and matches it: %v", s, key, split, !split)
			}
			if !split {
				continue
			}
			joined := bytes.Clone(p.literals[0])
			for i := range p.variables {
				if len(texts[i]) == 0 {
					t.Fatalf("%q cuts %q into %q", s, key, texts)
				}
				joined = append(append(joined, texts[i]...), p.literals[i+1]...)
			}
			if !bytes.Equal(joined, key) {
				t.Fatalf("%q cuts %q into %q", s, key, texts)
			}
		}
		q, err := parsePattern(other)
		if err != nil || len(s)*len(other) > 10000 {
			return
		}
		example, both := p.conflict(q)
		if both && (!p.match([]byte(example)) || !q.match([]byte(example))) {
			t.Fatalf("%q and %q do not both match %q", s, other, example)
		}
		if !both && p.match(key) && q.match(key) {
			t.Fatalf("%q and %q both match %q", s, other, key)
		}
	})
}

// write is the inverse of parsePattern.
func (p *pattern) write() string {
	braces := strings.NewReplacer("{", "{{", "}", "}}")
	s := braces.Replace(string(p.literals[0]))
	for i, v := range p.variables {
		s += "{" + v + "}" + braces.Replace(string(p.literals[i+1]))
	}
	return s
}
