package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc: the kernel shows them in USER_HZ, which is 100 on every architecture Go has.
const tick = 10 * time.Millisecond

// cpuTime is how much CPU time a process has used, in all its threads, those that have ended included.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStat(string(stat))
}

// parseStat adds up utime and stime, the 14th and 15th field of /proc/<pid>/stat: see proc(5).
func parseStat(stat string) (time.Duration, error) {
	// The second is the program's name in parentheses and may hold blanks and parentheses itself.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the CPU time of a process: no utime and stime in %q", stat)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a process: utime: %w", err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a process: stime: %w", err)
	}
	return time.Duration(user+system) * tick, nil
}
