//go:build !linux

package rawio

import (
	"errors"
	"net"
)

// Read is there on Linux only.
func Read(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Write is there on Linux only.
func Write(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Wrap returns c.
func Wrap(c net.Conn) net.Conn { return c }

// Unwrap returns c.
func Unwrap(c net.Conn) net.Conn { return c }
