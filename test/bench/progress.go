package main

import (
	"fmt"
	"io"
	"os"
)

// progress tells on one line what is going on, and keeps a line for each contest that is over.
type progress struct {
	out    io.Writer
	prefix string // of every line: how far it is
}

// say replaces the line. Where there is no terminal to do that on, only what is over is told.
func (p *progress) say(format string, args ...any) {
	if p.terminal() {
		fmt.Fprintf(p.out, "\r\033[K"+p.prefix+format, args...)
	}
}

// note writes a line that stays.
func (p *progress) note(format string, args ...any) {
	if p.terminal() {
		fmt.Fprint(p.out, "\r\033[K")
	}
	fmt.Fprintf(p.out, p.prefix+format+"\n", args...)
}

func (p *progress) done(c contest) { p.note("%s: %s", c, c.verdict()) }

func (p *progress) terminal() bool {
	f, ok := p.out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
