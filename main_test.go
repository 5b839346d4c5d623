package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asKeyrow in the environment makes the test program be keyrow.
const asKeyrow = "KEYROW_TEST_AS_KEYROW"

func TestMain(m *testing.M) {
	if os.Getenv(asKeyrow) != "" {
		main()
	}
	os.Exit(m.Run())
}

// keyrow runs the program in an empty folder, in which conf.toml holds conf unless that is empty.
func keyrow(t *testing.T, conf string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), asKeyrow+"=1")
	if conf != "" {
		if err := os.WriteFile(filepath.Join(cmd.Dir, "conf.toml"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// unreachable is valid, but nobody listens on port 1.
const unreachable = `
[redis]
addr = "127.0.0.1:1"
password = "s3cret"
[mysql]
dsn = "root:s3cret@tcp(127.0.0.1:1)/shop"
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
`

func TestCommandLine(t *testing.T) {
	const missing = "no such file or directory; name the configuration with -c, conf.toml.example shows one\n"
	for _, test := range []struct {
		name   string
		args   string
		conf   string
		status int
		stdout string // all of it
		stderr string // all of it
	}{
		{name: "version", args: "--version", stdout: "keyrow dev\n"},
		{name: "completion of nothing", args: "completion", status: 2,
			stderr: "keyrow: want the name of one shell, bash, zsh or fish, not 0 arguments\n"},
		{name: "completion of another shell", args: "completion csh", status: 2, stderr: "keyrow: \"csh\" is not one of bash, zsh, fish\n"},
		{name: "unknown flag", args: "--nope", status: 2,
			stderr: "keyrow: unknown flag: --nope; keyrow --help lists the flags\n"},
		{name: "unknown flag of check", args: "check -x", status: 2,
			stderr: "keyrow: unknown shorthand flag: 'x' in -x; keyrow --help lists the flags\n"},
		{name: "flag without its value", args: "-c", status: 2,
			stderr: "keyrow: flag needs an argument: 'c' in -c; keyrow --help lists the flags\n"},
		{name: "unknown command", args: "serve", status: 2,
			stderr: "keyrow: unknown command \"serve\"; keyrow --help lists the commands\n"},
		{name: "argument of check", args: "check conf.toml", status: 2,
			stderr: "keyrow: unknown command \"conf.toml\"; keyrow --help lists the commands\n"},
		{name: "init of no configuration", args: "init -c conf.toml", status: 2,
			stderr: "keyrow: unknown shorthand flag: 'c' in -c; keyrow --help lists the flags\n"},
		{name: "no configuration", status: 2, stderr: "keyrow: open conf.toml: " + missing},
		{name: "no configuration to check", args: "check", status: 2, stderr: "keyrow: open conf.toml: " + missing},
		{name: "another configuration", args: "-c other.toml", conf: unreachable, status: 2,
			stderr: "keyrow: open other.toml: " + missing},
		{name: "configuration that is no file", args: "-c .", status: 2,
			stderr: "keyrow: read .: is a directory; name the configuration with -c, conf.toml.example shows one\n"},
		{name: "bad configuration", args: "check", conf: "[redis]\nlanes = 'two'\ndb = -1\n" + minimal, status: 2,
			stderr: "keyrow: conf.toml:\n  redis.lanes: want a whole number, got \"two\"\n  redis.db: -1 is negative\n"},
		{name: "configuration that is not TOML", args: "--config=conf.toml", conf: "[redis\n", status: 2,
			stderr: "keyrow: conf.toml:\n  line 1, column 7: expected '.' or ']' to end table name, but got '\\n' instead\n"},
		{name: "no servers to check", args: "check", conf: unreachable, status: 1,
			stdout: "error: redis at 127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused\n" +
				"error: read the schema of mysql: server: dial tcp 127.0.0.1:1: connect: connection refused\n",
			stderr: "keyrow: keyrow would not start with this configuration\n"},
		{name: "journal of nothing", args: "journal", status: 2, stderr: "keyrow: journal needs a command: status, flush, parked, " +
			"retry or drop; keyrow journal --help describes them\n"},
		{name: "journal of another command", args: "journal clear", status: 2,
			stderr: "keyrow: unknown command \"clear\"; keyrow --help lists the commands\n"},
		{name: "retry of nothing", args: "journal retry", status: 2, stderr: "keyrow: name the keys, or give --all\n"},
		{name: "drop of some and all", args: "journal drop --all user:1", status: 2, stderr: "keyrow: name the keys, or give --all\n"},
		{name: "flush of two keys", args: "journal flush user:1 user:2", status: 2, stderr: "keyrow: one key at most: user:1 user:2\n"},
		{name: "journal without redis", args: "journal status", conf: unreachable, status: 1,
			stderr: "keyrow: redis at 127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused\n"},
		{name: "no redis", conf: unreachable, status: 1,
			stderr: "keyrow: redis at 127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := keyrow(t, test.conf, strings.Fields(test.args)...)
			if status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			if stdout != test.stdout {
				t.Errorf("stdout is\n%s\nwant\n%s", stdout, test.stdout)
			}
			if stderr != test.stderr {
				t.Errorf("stderr is\n%s\nwant\n%s", stderr, test.stderr)
			}
		})
	}
}

func TestHelpSaysWhatThereIs(t *testing.T) {
	for _, test := range []struct {
		args  string
		words []string
	}{
		{"--help", []string{"keyrow -c conf.toml", "check ", "--config", "--version", "Exit status: 0 fine"}},
		{"check --help", []string{"keyrow check", "--config", "--json", "The exit status is 1 if keyrow would not start"}},
		{"init --help", []string{"keyrow init", "--dsn", "KEYROW_DSN", "--redis", "--out", "--force"}},
	} {
		status, stdout, stderr := keyrow(t, "", strings.Fields(test.args)...)
		if status != 0 || stderr != "" {
			t.Errorf("keyrow %s: exit status %d, stderr %q", test.args, status, stderr)
		}
		for _, word := range test.words {
			if !strings.Contains(stdout, word) {
				t.Errorf("keyrow %s does not say %q:\n%s", test.args, word, stdout)
			}
		}
	}
}
