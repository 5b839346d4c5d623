package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cheggaaa/pb/v3"
	"github.com/mattn/go-isatty"
)

const (
	// barEvery is how often the bar is drawn at most.
	barEvery = 100 * time.Millisecond
	// lineEvery is how often a line tells how far it is where there is no terminal.
	lineEvery = 10 * time.Second
)

// progress tells how far a command is: with a bar on a terminal, with a line now and then elsewhere, so that a log of
// it can be read. One goroutine at a time may use it.
type progress struct {
	out  io.Writer
	what string // "warm user"
	unit string // what is counted: "rows"

	bar     *pb.ProgressBar // nil: lines
	drawn   bool            // the bar stands on the last line
	started time.Time
	told    time.Time
	now     func() time.Time
}

func newProgress(out *os.File, what, unit string) *progress {
	p := &progress{out: out, what: what, unit: unit, now: time.Now}
	p.started = p.now()
	if isatty.IsTerminal(out.Fd()) && os.Getenv("TERM") != "dumb" {
		// Static: it is drawn here, so that what else is printed does not get into it.
		p.bar = pb.New64(0).Set(pb.Static, true).SetWriter(out).SetTemplateString(what +
			` {{counters . "%s of about %s" "%s"}} ` + unit + ` {{bar .}} {{speed . "%s/s" ""}} {{rtime . "%s left" "%s" ""}}`).Start()
	} else {
		p.told = p.started
	}
	return p
}

// set tells that done of about total are done; total 0: nobody knows of how many.
func (p *progress) set(done, total int64) {
	now := p.now()
	switch {
	case p.bar != nil && now.Sub(p.told) >= barEvery:
		p.bar.SetTotal(max(done, total)).SetCurrent(done).Write()
		p.told, p.drawn = now, true
	case p.bar == nil && now.Sub(p.told) >= lineEvery:
		fmt.Fprintln(p.out, p.line(done, total))
		p.told = now
	}
}

// line is how far it is, in words.
func (p *progress) line(done, total int64) string {
	text := fmt.Sprintf("%s: %d", p.what, done)
	if total > done {
		text += fmt.Sprintf(" of about %d", total)
	}
	rate := float64(done) / p.now().Sub(p.started).Seconds()
	text += fmt.Sprintf(" %s, %.0f/s", p.unit, rate)
	if total > done && rate > 0 {
		left := time.Duration(float64(total-done) / rate * float64(time.Second))
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	return text
}

// clear takes the bar off the terminal for something else to be printed, until the next set.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn, p.told = false, time.Time{}
	}
}
