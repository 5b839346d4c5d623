package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
)

// Binary builds keyrow, with its hooks, once per test process, and returns the path of the program.
var Binary = sync.OnceValues(func() (string, error) {
	args := []string{"-tags", "hooks"}
	if raceDetector {
		args = append(args, "-race")
	}
	return build(args...)
})

// leanBinary is keyrow as it is delivered: no hooks, and no race detector, which takes several times the memory.
var leanBinary = sync.OnceValues(func() (string, error) { return build() })

func build(args ...string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir, err := newDir("b")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "keyrow")
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, args...), ".")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build of keyrow: %w\n%s", err, out)
	}
	return path, nil
}

var isKeyrow = regexp.MustCompile(`(?m)^module keyrow$`)

// moduleRoot finds the folder of keyrow's go.mod above the working directory, which for a test is its package's.
func moduleRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && isKeyrow.Match(mod) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the go.mod of keyrow: none above %s", wd)
		}
	}
}
