package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completers are scripts that print what a shell would offer behind the words in $@, of which the last one is begun.
var completers = map[string]string{
	"bash": `source /usr/share/bash-completion/bash_completion
source <(keyrow completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_TYPE=63
COMP_POINT=${#COMP_LINE}
__start_keyrow
printf '%s\n' "${COMPREPLY[@]}"`,
	"zsh": `autoload -Uz compinit && compinit -u -D
source <(keyrow completion zsh)
_describe() { print -rl -- $completions }
_arguments() { print -rl -- *.toml }
words=("$@") CURRENT=$#
_keyrow`,
	"fish": `keyrow completion fish | source
complete -C "$(string join -- ' ' $argv)"`,
}

// Each shell completes commands, flags, names of the configuration, and its file.
func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "keyrow")); err != nil {
		t.Fatal(err)
	}
	conf := "[mysql]\ndsn = \"${NOT_SET}\"\n[[mapping]]\nname = \"user\"\nkey = \"user:{id}\"\n[[query]]\nname = \"ranking\"\nkey = \"rank\"\n"
	for _, name := range []string{"conf.toml", "other.toml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "torn.txt"), []byte("[[mapping"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		words  string // behind the last blank is the word that is begun
		offers []string
		not    []string
	}{
		{"keyrow jo", []string{"journal"}, []string{"warm"}},
		{"keyrow journal ", []string{"status", "flush", "parked", "retry", "drop"}, nil},
		{"keyrow warm ", []string{"user", "ranking"}, []string{"conf.toml"}},
		{"keyrow verify -c other.toml us", []string{"user"}, []string{"ranking"}},
		{"keyrow verify -c torn.txt ", nil, []string{"user"}},
		{"keyrow warm --ra", []string{"--rate"}, []string{"--from"}},
		{"keyrow check --config ", []string{"conf.toml", "other.toml"}, nil},
		{"keyrow completion ", []string{"bash", "zsh", "fish"}, nil},
	} {
		for shell, script := range completers {
			words := strings.Split(test.words, " ")
			var args []string
			switch shell {
			case "bash":
				args = append([]string{"--norc", "-c", script, shell}, words...)
			case "zsh":
				args = append([]string{"-f", "-c", script, shell}, words...)
			default:
				args = append([]string{"--no-config", "-c", script}, words...)
			}
			cmd := exec.CommandContext(t.Context(), shell, args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, asKeyrow+"=1")
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil && shell != "bash" { // whose status is that of compopt
				t.Errorf("%s: %v\n%.300s", shell, err, errs.String())
			}
			var offers []string
			for line := range strings.Lines(string(out)) {
				// Behind it there may be what it stands for.
				word, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, `\:`, ";")), "\t")
				word, _, _ = strings.Cut(word, ":")
				offers = append(offers, strings.Fields(word + " -")[0])
			}
			for _, want := range test.offers {
				if !slices.Contains(offers, want) {
					t.Errorf("%s does not offer %s behind %q, but %.300q\n%.300s", shell, want, test.words, offers, errs.String())
				}
			}
			for _, unwanted := range test.not {
				if slices.Contains(offers, unwanted) {
					t.Errorf("%s offers %s behind %q", shell, unwanted, test.words)
				}
			}
		}
	}
}

// The help of every command has an example, and says what exit statuses mean.
func TestHelp(t *testing.T) {
	for _, words := range []string{
		"", "init", "check", "warm", "verify", "journal status", "journal flush", "journal parked", "journal retry", "journal drop", "health",
		"version", "completion",
	} {
		status, stdout, stderr := keyrow(t, "", append([]string{"help"}, strings.Fields(words)...)...)
		if status != 0 || stderr != "" {
			t.Errorf("help %s: status %d, %s", words, status, stderr)
		}
		for _, part := range []string{"Usage:", "Examples:", "Exit status: 0 fine"} {
			if !strings.Contains(stdout, part) {
				t.Errorf("help %s has no %q:\n%s", words, part, stdout)
			}
		}
		if strings.Contains(stdout, "\x1b") {
			t.Errorf("help %s has colours", words)
		}
	}
	status, stdout, _ := keyrow(t, "", "version", "--json")
	if status != 0 || !strings.Contains(stdout, `"version": "dev"`) || !strings.Contains(stdout, `"platform": "`) {
		t.Errorf("version --json: status %d, %s", status, stdout)
	}
	if status, stdout, _ := keyrow(t, "", "version"); status != 0 || !strings.HasPrefix(stdout, "keyrow dev\n") {
		t.Errorf("version: status %d, %s", status, stdout)
	}
	status, stdout, stderr := keyrow(t, minimal+"[admin]\nlisten = ''\n", "health", "--json")
	if status != 1 || !strings.Contains(stdout, `"ok": false`) || !strings.Contains(stderr, "admin.listen is empty") {
		t.Errorf("health --json: status %d, %s, %s", status, stdout, stderr)
	}
}
