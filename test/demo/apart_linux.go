package main

import (
	"os/exec"
	"syscall"
)

// apart keeps the terminal's Ctrl-C from the child, which is to get one SIGTERM from the demo, and makes it end with
// the demo whatever happens to that.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
