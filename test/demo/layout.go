package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// layout shows rows in columns, the first of them as a head.
func layout(table [][]string) string {
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	rule := make([]string, len(widths))
	for i, w := range widths {
		rule[i] = strings.Repeat("-", w)
	}
	var b strings.Builder
	for _, row := range slices.Insert(slices.Clone(table), 1, rule) {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "%-*s  ", widths[i], cell)
		}
		fmt.Fprintln(&b, strings.TrimRight(line.String(), " "))
	}
	fmt.Fprintf(&b, "(%d row(s))", len(table)-1)
	return b.String()
}
