package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"keyrow/admin"
	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/proxy"
)

// reloadable are the settings besides mappings and queries that a reload puts in force.
var reloadable = []string{"log.level", "proxy.max_clients", "mysql.max_open", "mysql.max_waiting", "journal.max_pending"}

// reloader reads the configuration again, on SIGHUP and for KEYROW RELOAD. Nothing of what it says comes in force unless
// all of it can.
type reloader struct {
	ctx     context.Context // of the process
	path    string
	rdb     *redis.Client
	db      *sql.DB
	watch   *backend.Watch
	journal *backend.Journal
	loader  *backend.Loader
	server  *proxy.Server
	metrics *admin.Metrics
	log     zerolog.Logger

	mu     sync.Mutex // held for a reload
	config config     // in force
	left   []string   // mappings and queries of which outdated images could not be dropped
}

// errStopping is what a reload is answered that comes too late.
var errStopping = errors.New("keyrow is stopping: nothing was reloaded")

// run reloads for every signal until the process stops.
func (r *reloader) run(hangups <-chan os.Signal) {
	for {
		select {
		case <-hangups:
			_, _ = r.reload() // which logs what came of it
		case <-r.ctx.Done():
			return
		}
	}
}

// reload returns what changed. Its error says all that is wrong, in one line, and whether anything was changed.
func (r *reloader) reload() (changes []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, errStopping
	}
	tell(r.log, "RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()))
	defer tell(r.log, "READY=1")
	outcome := admin.ReloadRefused
	defer func() { r.metrics.Reloaded(outcome) }()
	next, err := loadConfig(r.path)
	if err == nil {
		changes, err = r.differences(next)
	}
	if err == nil && len(changes) > 0 {
		err = r.apply(next, changes)
	}
	if err != nil {
		problems := strings.Split(strings.ReplaceAll(err.Error(), ":\n  ", ": "), "\n")
		for i, text := range problems {
			problems[i] = strings.TrimSpace(text)
		}
		r.log.Error().Strs("problems", problems).Msg("the configuration was not reloaded; nothing was changed")
		return nil, errors.New("nothing was reloaded: " + strings.Join(problems, "; "))
	}
	if err := r.drop(); err != nil {
		outcome = admin.ReloadIncomplete
		r.log.Error().Err(err).Strs("changes", changes).Msg("the configuration was reloaded, but not all outdated copies in redis were dropped; reload again")
		return nil, fmt.Errorf("the configuration is in force, but what is cached of %s could not be dropped: %w; reload again",
			strings.Join(r.left, ", "), err)
	}
	outcome = admin.ReloadApplied
	if len(changes) == 0 {
		outcome = admin.ReloadUnchanged
	}
	r.log.Info().Strs("changes", changes).Msg("the configuration was reloaded")
	return changes, nil
}

// monotonic is the clock by which a service manager tells a reload from the one before.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// differences lists what is different in next. It fails if a setting is that takes a restart.
func (r *reloader) differences(next config) (changes []string, err error) {
	var restart []string
	eachDifference("", reflect.ValueOf(r.config), reflect.ValueOf(next), func(path string, was, is reflect.Value) {
		if slices.Contains(reloadable, path) {
			changes = append(changes, fmt.Sprintf("%s = %s, was %s", path, shown(is), shown(was)))
		} else {
			restart = append(restart, path) // its value may be a password
		}
	})
	if restart != nil {
		return nil, fmt.Errorf("%s: %s: a change of these takes a restart; restart keyrow, or take the change back",
			r.path, strings.Join(restart, ", "))
	}
	changes = append(changes, sectionChanges("mapping", r.config.Mappings, next.Mappings, func(m mapping.Config) string { return m.Name })...)
	changes = append(changes, sectionChanges("query", r.config.Queries, next.Queries, func(q mapping.QueryConfig) string { return q.Name })...)
	if changes == nil && !(reflect.DeepEqual(r.config.Mappings, next.Mappings) && reflect.DeepEqual(r.config.Queries, next.Queries)) {
		changes = append(changes, "mapping, query: in another order")
	}
	return changes, nil
}

// apply puts next in force.
func (r *reloader) apply(next config, changes []string) error {
	if writes(next) {
		ctx, cancel := context.WithTimeout(r.ctx, startTimeout)
		defer cancel()
		if err := backend.CheckEviction(ctx, r.rdb); err != nil {
			return err
		}
		warnings, err := durability(ctx, r.rdb, next)
		if err != nil {
			return err
		}
		for _, warning := range warnings {
			r.log.Warn().Msg(warning)
		}
	}
	succession, findings, err := r.watch.Reload(r.ctx, next.Mappings, next.Queries, r.journal)
	if err != nil {
		return err
	}
	for _, f := range findings {
		about := fmt.Sprintf("%s %q:", f.Section(), f.Mapping)
		if slices.ContainsFunc(changes, func(change string) bool { return strings.HasPrefix(change, about) }) {
			logFinding(r.log, f)
		}
	}
	for _, m := range succession.Outdated {
		r.left = append(r.left, m.Name)
	}
	zerolog.SetGlobalLevel(next.Log.level())
	r.server.SetMaxClients(next.Proxy.MaxClients)
	r.loader.SetMaxWaiting(next.MySQL.MaxWaiting)
	r.journal.SetMaxPending(next.Journal.MaxPending)
	r.db.SetMaxOpenConns(next.MySQL.MaxOpen)
	r.db.SetMaxIdleConns(next.MySQL.MaxOpen)
	r.config = next
	return nil
}

// drop drops what is cached of mappings and queries that make other images now.
func (r *reloader) drop() error {
	set := r.watch.Mappings()
	var outdated []*mapping.Mapping
	for _, m := range append(slices.Clone(set.All()), set.Queries()...) {
		if slices.Contains(r.left, m.Name) {
			outdated = append(outdated, m)
		}
	}
	if err := r.loader.Outdate(r.ctx, outdated...); err != nil {
		return err
	}
	r.left = nil
	return nil
}

// sectionChanges lists which sections of that kind were added, removed and changed.
func sectionChanges[C any](kind string, before, after []C, name func(C) string) (changes []string) {
	find := func(list []C, of C) int { return slices.IndexFunc(list, func(c C) bool { return name(c) == name(of) }) }
	for _, was := range before {
		if find(after, was) < 0 {
			changes = append(changes, fmt.Sprintf("%s %q: removed", kind, name(was)))
		}
	}
	for _, is := range after {
		i := find(before, is)
		if i < 0 {
			changes = append(changes, fmt.Sprintf("%s %q: added", kind, name(is)))
			continue
		}
		eachDifference("", reflect.ValueOf(before[i]), reflect.ValueOf(is), func(path string, was, now reflect.Value) {
			changes = append(changes, fmt.Sprintf("%s %q: %s = %s, was %s", kind, name(is), path, shown(now), shown(was)))
		})
	}
	return changes
}

// eachDifference calls do for each setting that is different, with its path. Lists of sections are left out.
func eachDifference(path string, was, is reflect.Value, do func(path string, was, is reflect.Value)) {
	for i := range was.NumField() {
		name := was.Type().Field(i).Tag.Get("toml")
		if path != "" {
			name = path + "." + name
		}
		a, b := was.Field(i), is.Field(i)
		switch {
		case a.Kind() == reflect.Struct:
			eachDifference(name, a, b, do)
		case a.Kind() == reflect.Slice && a.Type().Elem().Kind() == reflect.Struct:
		case !reflect.DeepEqual(a.Interface(), b.Interface()):
			do(name, a, b)
		}
	}
}

// maxShown is how many bytes of a value are shown.
const maxShown = 200

// shown is a value as people read it.
func shown(v reflect.Value) string {
	var text string
	switch x := v.Interface().(type) {
	case time.Duration:
		text = fmt.Sprintf("%q", x.String())
	case fmt.Stringer:
		text = x.String()
	default:
		text = fmt.Sprintf("%q", x)
		if k := v.Kind(); k != reflect.String && k != reflect.Slice && k != reflect.Map {
			text = fmt.Sprint(x)
		}
	}
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}
