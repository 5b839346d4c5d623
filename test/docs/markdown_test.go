// Package docs holds README.md and docs against what they speak of: it runs their commands and loads their
// configurations, in the order a reader would, and follows their links.
//
// How the documents are written for that:
//
//	```sh        commands, which must succeed
//	```console   what is typed behind a prompt ("$ ", "127.0.0.1:6380> ", "mysql> "), and what is printed. A line "..." is
//	             any number of lines, and "..." in a line anything; dates, durations and rates are not compared.
//	```sql       statements, run in the database shop by its administrator
//	```toml      with a dsn: the whole of conf.toml, from there on. Else a part, which must pass check together with it.
//	```python    run in one session for each document; lines with ">>> " are a session with what it prints
//
// Other blocks (text, yaml, ...) are not run, and code that is only indented is not allowed. A command that is the
// server, "keyrow -c conf.toml", runs until it is started anew. What cannot be run is in [exceptions].
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the folder of the project.
const root = "../.."

// document is one file in Markdown.
type document struct {
	path   string // "docs/mappings.md"
	lines  []string
	blocks []block
	prose  []string // lines, with those of blocks empty
}

// block is one block of code.
type block struct {
	language string
	lines    []string
	at       int // number of the first of lines in the document
}

func (b *block) text() string { return strings.Join(b.lines, "\n") + "\n" }

// documents reads all there are, in the order they are read in: README.md sends its readers on to the others.
func documents(t *testing.T) []*document {
	t.Helper()
	found, err := filepath.Glob(root + "/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := []*document{parse(t, "README.md")}
	for _, path := range found {
		docs = append(docs, parse(t, filepath.Join("docs", filepath.Base(path))))
	}
	return docs
}

var fence = regexp.MustCompile("^( *)```([a-z]*)$")

func parse(t *testing.T, path string) *document {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	d := &document{path: path, lines: strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")}
	d.prose = slices.Clone(d.lines)
	for i := 0; i < len(d.lines); i++ {
		begin := fence.FindStringSubmatch(d.lines[i])
		if begin == nil {
			continue
		}
		indent := begin[1]
		b := block{language: begin[2], at: i + 2}
		for d.prose[i] = ""; ; {
			if i++; i == len(d.lines) {
				t.Fatalf("%s:%d: the block has no end", path, b.at-1)
			}
			d.prose[i] = ""
			if d.lines[i] == indent+"```" {
				break
			}
			b.lines = append(b.lines, strings.TrimPrefix(d.lines[i], indent))
		}
		d.blocks = append(d.blocks, b)
	}
	return d
}

// languages are those of blocks that a test runs, and then those that none does.
var languages = []string{"sh", "console", "sql", "toml", "python", "text", "yaml", "ini", "dockerfile", "json"}

// runs reports whether there is something to run in the document.
func (d *document) runs() bool {
	return slices.ContainsFunc(d.blocks, func(b block) bool { return slices.Index(languages, b.language) < firstNotRun })
}

// firstNotRun is where those begin in languages that nobody runs.
var firstNotRun = slices.Index(languages, "text")

func TestBlocksHaveALanguage(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			if !slices.Contains(languages, b.language) {
				t.Errorf("%s:%d: the language %q of the block is none of %q", d.path, b.at-1, b.language, languages)
			}
		}
		for i, line := range d.prose {
			if strings.HasPrefix(line, "    ") && (i == 0 || d.lines[i-1] == "") {
				t.Errorf("%s:%d: put the code between lines of ``` with a language, so that it is run", d.path, i+1)
			}
		}
	}
}

// spans finds code within the text: each with its line.
func (d *document) spans() (found []span) {
	text := strings.Join(d.prose, "\n")
	for _, at := range codeSpan.FindAllStringSubmatchIndex(text, -1) {
		code := strings.Join(strings.Fields(text[at[2]:at[3]]), " ")
		found = append(found, span{code, 1 + strings.Count(text[:at[2]], "\n")})
	}
	return found
}

type span struct {
	code string
	line int
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

func (d *document) at(line int) string { return fmt.Sprintf("%s:%d", d.path, line) }
