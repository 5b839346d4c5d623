package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// report is everything that was found.
type report struct {
	Machine  machine     `json:"machine"`
	Contests []contest   `json:"contests"`
	Visible  *visibility `json:"visible_after_intervals,omitempty"`
}

// visibility is how long after the reply to a SET the row is in MySQL, in intervals of flushing.
type visibility struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// write prints the report as text, json or markdown.
func (r *report) write(out io.Writer, form string) error {
	if len(r.Contests) == 0 {
		return nil
	}
	if form == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	var text strings.Builder
	for _, line := range r.Machine.lines() {
		fmt.Fprintf(&text, "- %s\n", line)
	}
	for _, t := range r.tables() {
		if len(t.rows) == 0 {
			continue
		}
		if form == "markdown" {
			t.markdown(&text)
		} else {
			t.text(&text)
		}
	}
	if v := r.Visible; v != nil {
		fmt.Fprintf(&text, "\nA row is in MySQL %.2f flush intervals after the reply to its SET in the median, %.2f at the 99th percentile.\n",
			v.P50, v.P99)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// tables of what was found, some of them perhaps without rows.
func (r *report) tables() []*table {
	names := r.proxyNames()
	throughput := &table{title: "Requests a second, as a ratio to a direct connection", left: 1,
		head: append([]string{"command", "value", "clients", "pipeline", "direct, per second"}, names...)}
	latency := &table{title: "Microseconds by which the median latency of a single client grows", left: 1,
		head: append([]string{"command", "value", "pipeline", "direct, µs"}, names...)}
	cpu := &table{title: "CPU seconds for a million requests, of the proxy + of Redis", left: 1,
		head: append([]string{"command", "value", "clients", "pipeline", "direct"}, names...)}
	rows := &table{title: "Rows of MySQL, as a ratio to doing the same without keyrow", left: 2,
		head: []string{"keyrow", "compared with", "its rate, per second", "ratio", "CPU s/million: keyrow", "Redis", "MySQL", "compared: Redis", "MySQL"}}

	for _, c := range r.Contests {
		if c.Scenario != "passthrough" {
			rows.add(c.rowsRow(rows)...)
			continue
		}
		cell := []string{strings.ToUpper(c.Cell.Command), size(c.Cell.Size), strconv.Itoa(c.Cell.Clients), strconv.Itoa(c.Cell.Pipeline)}
		if c.LeftOut != "" {
			throughput.add(append(cell, throughput.note("left out", c.LeftOut))...)
			continue
		}
		throughput.add(append(cell, c.columns(names, func(s, base series) string {
			switch {
			case s.Failed != "":
				return throughput.note("failed", fmt.Sprintf("%s, %s: %s", c, s.Target, s.Failed))
			case s.Target == base.Target:
				return round(s.perSecond())
			}
			return ratio(s.ratio(base))
		})...)...)
		if c.Cell.Clients == 1 {
			latency.add(append([]string{cell[0], cell[1], cell[3]}, c.columns(names, func(s, base series) string {
				switch {
				case s.Failed != "":
					return "failed"
				case s.Target == base.Target:
					return fmt.Sprintf("%.0f", s.p50()*1000)
				}
				return fmt.Sprintf("%+.0f", s.slower(base)*1000)
			})...)...)
		}
		cpu.add(append(cell, c.columns(names, func(s, base series) string {
			switch {
			case s.Failed != "":
				return "failed"
			case s.Target == base.Target:
				return fixed(s.cpu("redis"))
			}
			return fixed(s.cpu("proxy")) + " + " + fixed(s.cpu("redis"))
		})...)...)
	}
	return []*table{throughput, latency, cpu, rows}
}

// proxyNames are the targets of passthrough but the direct connection, in the order in which they were measured.
func (r *report) proxyNames() []string {
	var names []string
	for _, c := range r.Contests {
		if c.Scenario != "passthrough" || len(c.Targets) <= len(names)+1 {
			continue
		}
		names = nil
		for _, s := range c.Targets[1:] {
			names = append(names, s.Target)
		}
	}
	return names
}

// columns are those of the direct connection and of each name; empty for what was not measured.
func (c contest) columns(names []string, show func(s, base series) string) []string {
	base := c.Targets[0]
	columns := []string{show(base, base)}
	for _, name := range names {
		column := ""
		for _, s := range c.Targets {
			if s.Target == name && base.Failed == "" {
				column = show(s, base)
			}
		}
		columns = append(columns, column)
	}
	return columns
}

// rowsRow is the row of a contest between keyrow and something else than itself.
func (c contest) rowsRow(t *table) []string {
	base := c.Targets[0]
	row := []string{c.String(), base.Target}
	for _, s := range c.Targets {
		if s.Failed != "" {
			return append(row, t.note("failed", fmt.Sprintf("%s, %s: %s", c, s.Target, s.Failed)))
		}
	}
	k := c.Targets[1]
	return append(row, round(base.perSecond()), ratio(k.ratio(base)), fixed(k.cpu("proxy")), fixed(k.cpu("redis")),
		fixed(k.cpu("mysql")), fixed(base.cpu("redis")), fixed(base.cpu("mysql")))
}

// verdict says in one line how a contest ended.
func (c contest) verdict() string {
	if c.LeftOut != "" {
		return "left out: " + c.LeftOut
	}
	base := c.Targets[0]
	if base.Failed != "" {
		return base.Target + " failed: " + base.Failed
	}
	text := base.Target + " " + round(base.perSecond()) + "/s"
	for _, s := range c.Targets[1:] {
		if s.Failed != "" {
			text += ", " + s.Target + " failed: " + s.Failed
		} else {
			text += ", " + s.Target + " " + ratio(s.ratio(base))
		}
	}
	return text
}

// String names what was measured.
func (c contest) String() string {
	clients := "1 client"
	if c.Cell.Clients > 1 {
		clients = fmt.Sprintf("%d clients", c.Cell.Clients)
	}
	switch c.Scenario {
	case "mapped-set":
		return fmt.Sprintf("SET of %d rows, %s, pipeline %d", c.Cell.Rows, clients, c.Cell.Pipeline)
	case "cold-read":
		return fmt.Sprintf("GET of rows that are not in Redis, %s", clients)
	case "flush":
		return "flush of a backlog of rows"
	}
	text := strings.ToUpper(c.Cell.Command)
	if c.Cell.Size > 0 {
		text += " " + size(c.Cell.Size)
	}
	return fmt.Sprintf("%s, %s, pipeline %d", text, clients, c.Cell.Pipeline)
}

func size(bytes int) string {
	switch {
	case bytes == 0:
		return "–"
	case bytes%1024 == 0:
		return fmt.Sprintf("%d KiB", bytes/1024)
	}
	return fmt.Sprintf("%d B", bytes)
}

func ratio(v float64) string { return fmt.Sprintf("%.2f", v) }

// fixed shows CPU seconds for a million requests.
func fixed(v float64) string { return fmt.Sprintf("%.1f", v) }

// round shows a rate, which is good for two or three digits.
func round(v float64) string {
	if v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	unit := math.Pow(10, math.Floor(math.Log10(v))-2)
	return strconv.FormatFloat(math.Round(v/unit)*unit, 'f', -1, 64)
}
