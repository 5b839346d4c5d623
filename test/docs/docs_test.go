package docs

import (
	"strings"
	"testing"
)

// exceptions are commands of the documents that are not run here, each with the reason.
var exceptions = map[string]string{
	`kill -HUP "$(pidof keyrow)"`:                                                                          "KEYROW RELOAD, which does the same, is run beside it",
	`kill -USR2 "$(pidof keyrow)"`:                                                                         "tests of hand-overs do, with clients that watch",
	`go test ./test -run TestLongOutage -v -timeout 30m -backlog.time 5m`:                                  "it takes half an hour; a shorter run of it is among the tests",
	`docker run -v ./conf.toml:/etc/keyrow/conf.toml:ro -p 6380:6380 -e MYSQL_PASSWORD keyrow`:             "test/image runs it without an engine",
	`docker build --build-arg VERSION=v1.2.3 -t keyrow .`:                                                  "test/image builds it without an engine",
	`CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=v1.2.3" -o keyrow .`: "test/image does",
	"go -C test/demo run .":                                                                                "test/run does, where it stands in README.md",
	"go -C test/demo run . -script":                                                                        "as above",
	"apt-get install redis-server mariadb-server":                                                          "test/run does that",
	"./test/run":                               "this test is a part of it",
	"go run ./test/campaign":                   "it takes a quarter of an hour, and test/campaign has a test of its own",
	"go run ./test/campaign -seed 17 -round 3": "the same",
	"go run ./test/bench":                      "it takes an hour, and test/bench has tests of its own",
	"go run ./test/bench -scenario passthrough -clients 50 -pipelines 1,16 -sizes 100 -commands get,set": "it takes minutes",
}

// standIns play commands that need a machine with services.
var standIns = map[string]func(r *reader){
	"systemctl stop mariadb":              func(r *reader) { r.mysql.Stop() },
	"systemctl start mariadb":             func(r *reader) { r.mysql.Restart() },
	"systemctl stop redis-server":         func(r *reader) { r.redis.Stop() },
	"systemctl start redis-server":        func(r *reader) { r.redis.Restart() },
	"systemctl stop keyrow":               (*reader).stop,
	"systemctl start keyrow":              func(r *reader) { r.serve("systemctl start keyrow", "keyrow -c conf.toml") },
	"systemctl kill --signal=KILL keyrow": (*reader).kill,
}

// Everything that the documents say to type works, in each of them after README.md.
func TestDocuments(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	docs := documents(t)
	for _, d := range docs {
		if !d.runs() {
			continue
		}
		ok := t.Run(strings.TrimSuffix(d.path, ".md"), func(t *testing.T) {
			r.t = t
			r.reset()
			r.read(t, docs[0])
			if d != docs[0] {
				r.read(t, d)
				return
			}
			r.countersAreListed()
			r.spansAreTrue(docs)
		})
		if !ok {
			return
		}
	}
	r.t = t
	r.stop()
}

// countersAreListed holds what KEYROW INFO prints against docs/operations.md.
func (r *reader) countersAreListed() {
	r.t.Helper()
	listed := map[string]bool{}
	d := parse(r.t, "docs/operations.md")
	for _, s := range d.spans() {
		listed[s.code] = true
	}
	printed := r.run(d.path, command{text: "redis-cli -p 6380 KEYROW INFO"})
	for line := range strings.Lines(printed) {
		if name, _, ok := strings.Cut(line, ":"); ok && !listed[name] {
			r.t.Errorf("%s does not say what %s of KEYROW INFO is", d.path, name)
		}
	}
}

// What is not run is said of commands that there are.
func TestExceptions(t *testing.T) {
	t.Parallel()
	typed := map[string]bool{}
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			switch b.language {
			case "sh":
				for _, c := range commands(b.lines) {
					typed[c.text] = true
				}
			case "console":
				for _, c := range consoleCommands(b.lines) {
					typed[c.text] = true
				}
			}
		}
	}
	for text, why := range exceptions {
		if !typed[text] {
			t.Errorf("%q, which is not run (%s), stands in no document any more; take out the exception", text, why)
		}
	}
	for text := range standIns {
		if !typed[text] {
			t.Errorf("%q, which is played, stands in no document any more; take it out", text)
		}
	}
}
