package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is printed as text or as markdown. Rows may be shorter than the head.
type table struct {
	title string
	head  []string
	left  int // how many columns are text, and so start at the left
	rows  [][]string
	notes []string // below it; the n-th is what [n] stands for
}

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

// note is text with a reference to an explanation below the table.
func (t *table) note(text, explanation string) string {
	i := slices.Index(t.notes, explanation)
	if i < 0 {
		i = len(t.notes)
		t.notes = append(t.notes, explanation)
	}
	return fmt.Sprintf("%s [%d]", text, i+1)
}

func (t *table) text(out *strings.Builder) {
	fmt.Fprintf(out, "\n%s\n\n", t.title)
	t.lines(out, "", "  ", "")
	t.footnotes(out)
}

func (t *table) markdown(out *strings.Builder) {
	fmt.Fprintf(out, "\n### %s\n\n", t.title)
	rows := t.rows
	rule := make([]string, len(t.head))
	for i, width := range t.widths() {
		if i < t.left {
			rule[i] = strings.Repeat("-", width)
		} else {
			rule[i] = strings.Repeat("-", max(1, width-1)) + ":"
		}
	}
	t.rows = append([][]string{rule}, rows...)
	t.lines(out, "| ", " | ", " |")
	t.rows = rows
	t.footnotes(out)
}

// lines writes the head and the rows, padded to columns.
func (t *table) lines(out *strings.Builder, before, between, after string) {
	widths := t.widths()
	for _, row := range append([][]string{t.head}, t.rows...) {
		padded := make([]string, len(widths))
		for i, width := range widths {
			cell := ""
			if i < len(row) {
				cell = row[i]
			}
			blanks := strings.Repeat(" ", width-utf8.RuneCountInString(cell))
			if i < t.left {
				padded[i] = cell + blanks
			} else {
				padded[i] = blanks + cell
			}
		}
		out.WriteString(strings.TrimRight(before+strings.Join(padded, between)+after, " ") + "\n")
	}
}

func (t *table) widths() []int {
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

func (t *table) footnotes(out *strings.Builder) {
	for i, note := range t.notes {
		fmt.Fprintf(out, "\n[%d] %s\n", i+1, note)
	}
}
