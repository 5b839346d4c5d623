package main

import (
	"fmt"
	"io"
	"slices"
	"testing"
)

// stage stands where the harness wants a test: it stops at the first failure, and takes down what was set up.
type stage struct {
	testing.TB // for its method that others cannot have; nil

	out      io.Writer // for what the harness has to say
	failed   bool
	cleanups []func()
}

// run calls do and then the cleanups, last in first out, and returns how the harness or do failed.
func (s *stage) run(do func() error) (err error) {
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

func (s *stage) Helper()          {}
func (s *stage) Failed() bool     { return s.failed }
func (s *stage) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *stage) Fatal(args ...any) {
	s.failed = true
	panic(stageFailure(fmt.Sprint(args...)))
}

func (s *stage) Fatalf(format string, args ...any) { s.Fatal(fmt.Sprintf(format, args...)) }

func (s *stage) Errorf(format string, args ...any) {
	s.failed = true
	s.Logf(format, args...)
}

func (s *stage) Logf(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }
