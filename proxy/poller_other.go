//go:build !linux

package proxy

import "errors"

// poller exists on Linux only. Elsewhere every session and every lane has goroutines that wait for its connection.
type poller struct{ n int }

func newPoller() (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) add(int, uint64) error               { return errors.ErrUnsupported }
func (*poller) remove(int) error                    { return errors.ErrUnsupported }
func (*poller) poll() int                           { return 0 }
func (*poller) wait() error                         { return errors.ErrUnsupported }
func (*poller) event(int) (uint64, readiness, bool) { return 0, 0, false }
func (*poller) ring()                               {}
func (*poller) close()                              {}

func giveWay() {}
