package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// machine is what the numbers hold for.
type machine struct {
	CPUs     int       `json:"cpus"`
	CPU      string    `json:"cpu"`
	MemoryMB int       `json:"memory_mb"`
	Kernel   string    `json:"kernel"`
	Versions []version `json:"versions"`
}

// version is that of a program which takes part.
type version struct {
	Program string `json:"program"`
	Version string `json:"version"`
}

// describe looks at the machine and asks the programs for their versions.
func describe(keyrow string) (machine, error) {
	m := machine{CPUs: runtime.NumCPU(), CPU: "unknown CPU", Kernel: runtime.GOOS}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = field(string(text), "model name", m.CPU)
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		kb, _ := strconv.Atoi(strings.TrimSuffix(field(string(text), "MemTotal", ""), " kB"))
		m.MemoryMB = kb / 1024
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel += " " + strings.TrimSpace(string(text))
	}
	built, err := keyrowVersion(keyrow)
	if err != nil {
		return m, err
	}
	m.Versions = append(m.Versions, version{"keyrow", built})
	for _, v := range []struct {
		name, program string
		args          []string
	}{
		{"redis-server", "redis-server", []string{"--version"}},
		{"redis-benchmark", "redis-benchmark", []string{"--version"}},
		{"MariaDB", "mariadbd", []string{"--no-defaults", "--version"}},
		{"twemproxy", "nutcracker", []string{"--version"}},
		{"HAProxy", "haproxy", []string{"-v"}},
	} {
		path := program(v.program)
		if path == "" {
			continue
		}
		out, err := exec.Command(path, v.args...).CombinedOutput()
		if err != nil {
			return m, fmt.Errorf("ask %s for its version: %w", v.program, err)
		}
		m.Versions = append(m.Versions, version{v.name, number(string(out))})
	}
	return m, nil
}

// keyrowVersion is the commit and the compiler a keyrow was built from and with.
func keyrowVersion(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read how keyrow was built: %w", err)
	}
	commit, changed := "of an unknown commit", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = " with changes"
		}
	}
	return commit + changed + ", " + info.GoVersion, nil
}

// field finds the line "name : value" of a file in /proc.
func field(text, name, fallback string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return fallback
}

var dotted = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// number is the first version in what a program prints about itself.
func number(text string) string { return dotted.FindString(text) }

func (m machine) lines() []string {
	versions := make([]string, len(m.Versions))
	for i, v := range m.Versions {
		versions[i] = v.Program + " " + v.Version
	}
	return []string{
		fmt.Sprintf("%d × %s, %.0f GB of memory, %s", m.CPUs, m.CPU, float64(m.MemoryMB)/1024, m.Kernel),
		strings.Join(versions, "; "),
	}
}
