//go:build hooks

package main

import (
	"bufio"
	"net"
	"os"
	"slices"
	"strings"
)

// The build for tests can be held at the labelled points of its code: package harness has the other side, and
// describes the protocol at its type Hooks.
func init() {
	socket := os.Getenv("KEYROW_HOOKS")
	points := strings.Split(os.Getenv("KEYROW_HOOK_POINTS"), ",")
	if socket == "" {
		return
	}
	all := slices.Contains(points, "*")
	hook = func(point string) {
		if all || slices.Contains(points, point) {
			hold(socket, point)
		}
	}
}

// hold returns when the test says "go", or is not there (any more).
func hold(socket, point string) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := c.Write([]byte(point + "\n")); err != nil {
		return
	}
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil || line == "go\n" {
			return
		}
	}
}
