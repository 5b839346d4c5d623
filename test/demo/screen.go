package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

const promptText = "demo> "

// screen is the one place that writes to the terminal: answers, counters and keyrow's log come from several goroutines
// and must not mix within a line.
type screen struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	waiting  bool // the prompt is shown and nothing was entered yet
}

func newScreen(w io.Writer, terminal bool) *screen { return &screen{w: w, terminal: terminal} }

// line writes one line, above the prompt if that is shown.
func (s *screen) line(format string, args ...any) { s.text(fmt.Sprintf(format, args...)) }

// text writes lines, above the prompt if that is shown.
func (s *screen) text(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting {
		fmt.Fprint(s.w, "\r\x1b[K")
	}
	fmt.Fprintln(s.w, strings.TrimRight(text, "\n"))
	if s.waiting {
		fmt.Fprint(s.w, promptText)
	}
}

// ask shows the prompt; on anything but a terminal it would only be noise.
func (s *screen) ask() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		s.waiting = true
		fmt.Fprint(s.w, promptText)
	}
}

// asked says that a line was entered, or none will be.
func (s *screen) asked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
}
