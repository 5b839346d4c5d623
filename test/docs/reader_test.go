package docs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"keyrow/test/harness"
)

// reader does what the documents say, in a folder of its own, with a Redis and a MySQL that stand for the ones at the
// usual ports.
type reader struct {
	t     *testing.T
	dir   string
	env   []string
	state string // file of the environment that one command leaves to the next
	redis *harness.Redis
	mysql *harness.MySQL

	ports   map[string]string // those of the documents -> ours
	keyrow  *program          // nil: none runs
	session *python
}

// patience is how long one command may take, on a machine with much else to do: one of them builds keyrow.
const patience = 5 * time.Minute

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, dir: t.TempDir(), state: filepath.Join(t.TempDir(), "state"),
		redis: harness.StartRedis(t, "--appendonly", "yes"), mysql: harness.StartMySQL(t), ports: map[string]string{}}
	for documented, addr := range map[string]string{
		"6379": r.redis.Addr, "3306": r.mysql.Addr, "6380": harness.FreeAddr(t), "9121": harness.FreeAddr(t),
	} {
		_, r.ports[documented], _ = net.SplitHostPort(addr)
	}
	home := t.TempDir()
	client := fmt.Sprintf("[client]\nprotocol = tcp\nhost = 127.0.0.1\nport = %s\nuser = root\n", r.ports["3306"])
	if err := os.WriteFile(filepath.Join(home, ".my.cnf"), []byte(client), 0o600); err != nil {
		t.Fatal(err)
	}
	r.env = append(os.Environ(), "HOME="+home, "PATH="+r.dir+":"+os.Getenv("PATH"))
	for _, name := range []string{"GOPATH", "GOCACHE", "GOMODCACHE"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		r.env = append(r.env, name+"="+strings.TrimSpace(string(value)))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.log())
		}
		r.kill()
	})
	return r
}

// reset makes everything as it was before README.md.
func (r *reader) reset() {
	r.t.Helper()
	r.stop()
	r.redis.Do("FLUSHALL")
	for _, user := range strings.Fields(r.mysql.Text("", "SELECT IFNULL(GROUP_CONCAT(QUOTE(user), '@', QUOTE(host) SEPARATOR ' '), '')"+
		" FROM mysql.user WHERE user IN ('keyrow', 'proxy')")) {
		r.mysql.Exec("", "DROP USER "+user)
	}
	r.mysql.Exec("", "DROP DATABASE IF EXISTS shop; CREATE DATABASE shop")
	if err := os.WriteFile(r.state, nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "conf.toml")); err != nil {
		r.t.Fatal(err)
	}
}

// read does what one document says.
func (r *reader) read(t *testing.T, d *document) {
	r.t = t
	for i := range d.blocks {
		b := &d.blocks[i]
		where := d.at(b.at)
		switch b.language {
		case "sh":
			for _, c := range commands(b.lines) {
				r.sh(d.at(b.at+c.at), c)
			}
		case "console":
			for _, c := range consoleCommands(b.lines) {
				r.sh(d.at(b.at+c.at), c)
			}
		case "sql":
			if _, err := r.mysql.DB("shop").Exec(b.text()); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
		case "toml":
			r.configure(where, b.text())
		case "python":
			r.python(where, b.text())
		}
		if t.Failed() {
			return
		}
	}
	if r.session != nil {
		r.session.close()
		r.session = nil
	}
}

// command is one command of a block.
type command struct {
	text string
	at   int // line in its block

	client  string   // "redis" or "mysql": text is what is typed there
	port    string   // of the client
	printed []string // what it prints; nil: nobody says
}

// serves finds the command that is the server.
var serves = regexp.MustCompile(`^(\./)?keyrow -c \S+$`)

func (r *reader) sh(where string, c command) {
	r.t.Helper()
	if _, ok := exceptions[c.text]; ok {
		return
	}
	if played, ok := standIns[c.text]; ok {
		played(r)
		return
	}
	r.moveConfigs()
	switch {
	case c.client == "redis":
		r.compare(where, c, took.ReplaceAllString(r.run(where, c, "redis-cli", "-p", r.ports[c.port], "--no-raw"), ""))
	case c.client == "mysql":
		r.compare(where, c, r.run(where, c, "mysql", "-t", "shop"))
	case serves.MatchString(c.text):
		r.serve(where, c.text)
	default:
		r.compare(where, c, r.run(where, c))
	}
}

// took is what redis-cli adds to replies that took it half a second.
var took = regexp.MustCompile(`(?m)^\(\d+\.\d+s\)\n`)

// script is a command that has the environment which those before it left, and leaves its own.
const script = `. "$STATE"; eval "$1"; status=$?; export -p >"$STATE"; exit $status`

// run runs a command, or what is typed into a client, and returns what it prints.
func (r *reader) run(where string, c command, client ...string) (printed string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	var cmd *exec.Cmd
	if client != nil {
		cmd = exec.CommandContext(ctx, client[0], client[1:]...)
		cmd.Stdin = strings.NewReader(r.moved(c.text))
	} else {
		cmd = exec.CommandContext(ctx, "bash", "-c", script, "bash", r.moved(r.builds(c.text)))
	}
	cmd.Dir, cmd.Env = r.dir, append(r.env, "STATE="+r.state)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && len(c.printed) == 0 {
		r.t.Fatalf("%s: %s: %v\n%s%s", where, c.text, err, out, r.log())
	}
	return r.documented(string(out))
}

// builds has go build work in the folder of the project, and leave the program in the reader's.
func (r *reader) builds(text string) string {
	rest, ok := strings.CutPrefix(text, "go build -o ")
	if !ok {
		return text
	}
	from, err := filepath.Abs(root)
	if err != nil {
		r.t.Fatal(err)
	}
	return "go build -C " + from + " -o " + r.dir + "/" + rest
}

// compare holds what a command printed against what the document says.
func (r *reader) compare(where string, c command, printed string) {
	r.t.Helper()
	if c.printed == nil {
		return
	}
	if got := strings.Split(strings.TrimRight(printed, "\n"), "\n"); !matches(c.printed, got) {
		r.t.Fatalf("%s: %s\nprints\n%s\nand the document says\n%s\n%s", where, c.text, printed, strings.Join(c.printed, "\n"), r.log())
	}
}

// serve starts the server, in place of the one that runs.
func (r *reader) serve(where, text string) {
	r.t.Helper()
	r.stop()
	p, err := start(r.dir, append(r.env, "STATE="+r.state), "bash", "-c", `. "$STATE"; exec `+r.moved(text))
	if err != nil {
		r.t.Fatalf("%s: %v", where, err)
	}
	r.keyrow = p
	harness.Until(r.t, text+" is ready", func() bool { return r.ready() || p.exited() })
	if p.exited() {
		r.t.Fatalf("%s: %s ended:\n%s", where, text, p.log())
	}
}

// ready reports whether clients may be sent to the server.
func (r *reader) ready() bool {
	answer, err := http.Get("http://127.0.0.1:" + r.ports["9121"] + "/readyz")
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// stop ends the server as Ctrl-C does.
func (r *reader) stop() {
	r.t.Helper()
	if r.keyrow == nil {
		return
	}
	p := r.keyrow
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	harness.Until(r.t, "keyrow ends", p.exited)
	r.keyrow = nil
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		r.t.Fatalf("keyrow ended with status %d:\n%s", code, p.log())
	}
}

// kill ends the server, if one runs, as kill -9 does.
func (r *reader) kill() {
	if r.keyrow != nil {
		r.keyrow.kill()
		r.keyrow = nil
	}
}

func (r *reader) log() string {
	if r.keyrow == nil {
		return ""
	}
	return "\nthe keyrow that runs logged\n" + r.keyrow.log()
}

// configure writes conf.toml, or checks a part of it.
func (r *reader) configure(where, text string) {
	r.t.Helper()
	var part map[string]any
	if _, err := toml.Decode(text, &part); err != nil {
		r.t.Fatalf("%s: %v", where, err)
	}
	my, _ := part["mysql"].(map[string]any)
	if my["dsn"] != nil {
		if err := os.WriteFile(filepath.Join(r.dir, "conf.toml"), []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	r.moveConfigs()
	var whole map[string]any
	if _, err := toml.DecodeFile(filepath.Join(r.dir, "conf.toml"), &whole); err != nil {
		r.t.Fatal(err)
	}
	merge(whole, part)
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(whole); err != nil {
		r.t.Fatal(err)
	}
	name := filepath.Join(r.dir, "part.toml")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.run(where, command{text: "keyrow check -c part.toml"})
	if err := os.Remove(name); err != nil {
		r.t.Fatal(err)
	}
}

// merge puts part over whole. A mapping or query of a name that is there takes its place.
func merge(whole, part map[string]any) {
	for name, v := range part {
		switch v := v.(type) {
		case map[string]any:
			below, _ := whole[name].(map[string]any)
			if below == nil {
				below = map[string]any{}
			}
			merge(below, v)
			whole[name] = below
		case []map[string]any:
			list, _ := whole[name].([]map[string]any)
			for _, section := range v {
				list = with(list, section)
			}
			whole[name] = list
		default:
			whole[name] = v
		}
	}
}

func with(list []map[string]any, section map[string]any) []map[string]any {
	for i := range list {
		if list[i]["name"] == section["name"] {
			list[i] = section
			return list
		}
	}
	return append(list, section)
}

// addresses are those that the servers of the documents have unless told otherwise.
var addresses = []struct{ section, key, port string }{
	{"proxy", "listen", "6380"}, {"admin", "listen", "9121"}, {"redis", "addr", "6379"},
}

// moveConfigs makes every configuration say where our servers are.
func (r *reader) moveConfigs() {
	r.t.Helper()
	names, _ := filepath.Glob(filepath.Join(r.dir, "*.toml"))
	for _, name := range names {
		was, err := os.ReadFile(name)
		if err != nil {
			r.t.Fatal(err)
		}
		var conf map[string]any
		if _, err := toml.Decode(string(was), &conf); err != nil {
			r.t.Fatalf("%s: %v", name, err)
		}
		text := r.moved(string(was))
		for _, a := range addresses {
			section, there := conf[a.section].(map[string]any)
			if section[a.key] != nil {
				continue
			}
			line := fmt.Sprintf("%s = \"127.0.0.1:%s\"\n", a.key, r.ports[a.port])
			if header := "[" + a.section + "]\n"; there {
				text = strings.Replace(text, header, header+line, 1)
			} else {
				text += "\n" + header + line
			}
		}
		if text == string(was) {
			continue
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

var port = regexp.MustCompile(`\b\d{4,5}\b`)

// moved puts our ports in the place of those of the documents.
func (r *reader) moved(text string) string {
	return port.ReplaceAllStringFunc(text, func(number string) string {
		if ours, ok := r.ports[number]; ok {
			return ours
		}
		return number
	})
}

// documented is the reverse of moved.
func (r *reader) documented(text string) string {
	return port.ReplaceAllStringFunc(text, func(number string) string {
		for documented, ours := range r.ports {
			if number == ours {
				return documented
			}
		}
		return number
	})
}

// python runs a block in the session of the document.
func (r *reader) python(where, code string) {
	r.t.Helper()
	if r.session == nil {
		var err error
		if r.session, err = startPython(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
	wrong, err := r.session.run(r.moved(code))
	if err != nil || wrong != "" {
		r.t.Fatalf("%s: %v\n%s%s", where, err, r.documented(wrong), r.log())
	}
}

// python is a session of Python.
type python struct {
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

// interpreter is a Python that has the clients of Redis and MySQL: the first on the path may be somebody's own.
func interpreter() (string, error) {
	var last error
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.Command(name, "-c", "import redis, pymysql").CombinedOutput()
		if err == nil {
			return name, nil
		}
		last = fmt.Errorf("%s has no redis and pymysql, which test/run installs: %w\n%s", name, err, out)
	}
	return "", last
}

func startPython(ctx context.Context) (*python, error) {
	name, err := interpreter()
	if err != nil {
		return nil, err
	}
	p := &python{cmd: exec.CommandContext(ctx, name, "testdata/session.py")}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

// run returns what went wrong, if anything.
func (p *python) run(code string) (wrong string, err error) {
	line, err := json.Marshal(code)
	if err != nil {
		return "", err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return "", err
	}
	answer, err := p.out.ReadBytes('\n')
	if err != nil {
		return "", err
	}
	return wrong, json.Unmarshal(answer, &wrong)
}

func (p *python) close() {
	p.in.Close()
	p.cmd.Wait() //nolint:errcheck // what went wrong was said by run
}

// program is the server while it runs. The kernel kills it when the test process ends, however that ends.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func start(dir string, env []string, argv ...string) (*program, error) {
	p := &program{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the kernel goes by the thread that started it
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait() //nolint:errcheck // how it ended is read from ProcessState
		}
	}()
	return p, <-started
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *program) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *program) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *program) kill() {
	if err := p.cmd.Process.Kill(); err == nil || errors.Is(err, os.ErrProcessDone) {
		<-p.done
	}
}
