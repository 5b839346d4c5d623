//go:build unix && !linux

package main

import (
	"os/exec"
	"syscall"
)

// apart keeps the terminal's Ctrl-C from the child, which is to get one SIGTERM from the demo.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
