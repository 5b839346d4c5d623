package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A statement is the SELECT of a query, made ready to be prepared.
type statement struct {
	text string // with a ? for each value
	args []int  // which variable of the key each ? stands for
}

// parseStatement reads the sql of a query, in which {name} stands for the value of a variable. As in the key, {{ and }}
// stand for the characters. In quotes and comments all characters stand for themselves. Errors start with the byte
// offset of what is wrong.
func parseStatement(sql string, variables []string) (_ *statement, err error) {
	sql = strings.TrimRight(sql, "; \t\r\n")
	off, first := 0, -1 // first: where the first word is
	defer func() {
		if err != nil {
			err = fmt.Errorf("offset %d: %w", off, err)
		}
	}()
	s := &statement{}
	var text strings.Builder
	for off < len(sql) {
		n, comment, err := opaque(sql[off:])
		if err != nil {
			return nil, err
		}
		c := sql[off]
		if first < 0 && !comment && !strings.ContainsRune(" \t\r\n(", rune(c)) {
			first = off
			if word := firstWord(sql[off:]); !slices.Contains([]string{"SELECT", "WITH", "VALUES", "TABLE"}, strings.ToUpper(word)) {
				return nil, errors.New("not a SELECT; a query only reads")
			}
		}
		switch {
		case n > 0:
			text.WriteString(sql[off : off+n])
			off += n
		case c == '?':
			return nil, errors.New("a ?; write {name} for the value of a variable of the key")
		case c == ';':
			return nil, errors.New("a second statement")
		case c != '{' && c != '}':
			text.WriteByte(c)
			off++
		case off+1 < len(sql) && sql[off+1] == c:
			text.WriteByte(c)
			off += 2
		case c == '}':
			return nil, errors.New("a } without {; write }} for the character")
		default:
			name, _, closed := strings.Cut(sql[off+1:], "}")
			at := slices.Index(variables, name)
			switch {
			case !closed:
				return nil, errors.New("a { without }; write {{ for the character")
			case at < 0:
				return nil, fmt.Errorf("the key has no variable {%s}", name)
			}
			text.WriteByte('?')
			s.args = append(s.args, at)
			off += len(name) + 2
		}
	}
	if first < 0 {
		return nil, errors.New("empty; want a SELECT")
	}
	for i, name := range variables {
		if !slices.Contains(s.args, i) {
			return nil, fmt.Errorf("{%s} of the key does not stand in it, so keys that differ there would be the same", name)
		}
	}
	s.text = text.String()
	return s, nil
}

// opaque returns the length of the quoted text or the comment at the start of sql, 0 if there is none.
func opaque(sql string) (n int, comment bool, err error) {
	switch c := sql[0]; {
	case c == '\'' || c == '"' || c == '`':
		for i := 1; i < len(sql); i++ {
			switch {
			case sql[i] == '\\' && c != '`':
				i++
			case sql[i] == c:
				return i + 1, false, nil // a doubled quote starts another text right behind
			}
		}
		return 0, false, fmt.Errorf("a %c without another", c)
	case strings.HasPrefix(sql, "/*"):
		end := strings.Index(sql[2:], "*/")
		if end < 0 {
			return 0, false, errors.New("a /* without */")
		}
		return end + 4, true, nil
	case c == '#', strings.HasPrefix(sql, "--") && (len(sql) == 2 || sql[2] <= ' '):
		if end := strings.IndexByte(sql, '\n'); end >= 0 {
			return end, true, nil
		}
		return len(sql), true, nil
	}
	return 0, false, nil
}

// firstWord is the letters that sql starts with.
func firstWord(sql string) string {
	end := strings.IndexFunc(sql, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if end < 0 {
		end = len(sql)
	}
	return sql[:end]
}
