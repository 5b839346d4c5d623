package harness

import (
	"fmt"
	"io"
	"slices"
	"testing"
)

// Stage stands where the harness wants a test, in programs that are none: it stops at the first failure, and takes down
// what was set up.
type Stage struct {
	testing.TB // for its method that others cannot have; nil

	out      io.Writer // for what the harness has to say
	failed   bool
	cleanups []func()
}

// NewStage says to out what a test would log.
func NewStage(out io.Writer) *Stage { return &Stage{out: out} }

// Run calls do and then the cleanups, last in first out, and returns how the harness or do failed.
func (s *Stage) Run(do func() error) (err error) {
	defer func() {
		for _, f := range slices.Backward(s.cleanups) {
			f()
		}
	}()
	defer func() {
		switch v := recover().(type) {
		case nil:
		case stageFailure:
			err = v
		default:
			panic(v)
		}
	}()
	return do()
}

// stageFailure is what Fatal ends the stage with.
type stageFailure string

func (f stageFailure) Error() string { return string(f) }

// Helper does nothing.
func (s *Stage) Helper() {}

// Failed reports whether anything has failed so far.
func (s *Stage) Failed() bool { return s.failed }

// Cleanup has f called at the end of Run.
func (s *Stage) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// Fatal ends Run with an error.
func (s *Stage) Fatal(args ...any) {
	s.failed = true
	panic(stageFailure(fmt.Sprint(args...)))
}

// Fatalf is Fatal with a format.
func (s *Stage) Fatalf(format string, args ...any) { s.Fatal(fmt.Sprintf(format, args...)) }

// Errorf says that something failed, and lets Run go on.
func (s *Stage) Errorf(format string, args ...any) {
	s.failed = true
	s.Logf(format, args...)
}

// Logf writes a line.
func (s *Stage) Logf(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }
