package main

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// redisVersion is what the server says it is: the version whose commands it has, more or less.
const redisVersion = "7.0.0"

// redisServer is a server for Redis's protocol, in memory. It answers by itself what miniredis, made for unit tests, has
// no answer to and a program in front of Redis asks for: INFO by section, CONFIG GET, CLIENT ID, all of COMMAND.
type redisServer struct {
	addr     string
	mini     *miniredis.Miniredis
	commands []command

	lastID atomic.Int64
	peers  sync.Map // *server.Peer -> *peerState
}

type peerState struct {
	id    int64
	multi bool // between MULTI and EXEC, where miniredis must see every command; touched by the peer's goroutine only
}

func startRedis() (*redisServer, error) {
	r := &redisServer{mini: miniredis.NewMiniRedis()}
	r.mini.ClockTTL(true)
	if err := r.mini.Start(); err != nil {
		return nil, fmt.Errorf("redis server: %w", err)
	}
	r.addr = r.mini.Addr()
	var err error
	if r.commands, err = commandTable(r.mini.Server()); err != nil {
		r.mini.Close()
		return nil, fmt.Errorf("redis server: %w", err)
	}
	r.mini.Server().SetPreHook(r.answer)
	return r, nil
}

func (r *redisServer) close() { r.mini.Close() }

// answer says whether it replied to the command, else miniredis does.
func (r *redisServer) answer(c *server.Peer, name string, args ...string) bool {
	peer := r.peer(c)
	switch name {
	case "MULTI":
		peer.multi = true
	case "EXEC", "DISCARD":
		peer.multi = false
	}
	if peer.multi {
		return false
	}
	switch name {
	case "INFO":
		c.WriteBulk(r.info(args))
	case "CONFIG":
		return configGet(c, args)
	case "COMMAND":
		answerCommand(c, r.commands, args)
	case "CLIENT":
		return clientCommand(c, peer.id, args)
	case "ACL":
		if len(args) != 1 || !strings.EqualFold(args[0], "WHOAMI") {
			return false
		}
		c.WriteBulk("default")
	case "RESET":
		c.Ctx, c.Resp3, c.ClientName = nil, false, ""
		c.WriteInline("RESET")
	default:
		return false
	}
	return true
}

func (r *redisServer) peer(c *server.Peer) *peerState {
	if state, ok := r.peers.Load(c); ok {
		return state.(*peerState)
	}
	// The peers of redis.call in a script are made for one call and never disconnect; they are left out.
	state := &peerState{}
	if c.Ctx == nil {
		state.id = r.lastID.Add(1)
		r.peers.Store(c, state)
		c.OnDisconnect(func() { r.peers.Delete(c) })
	}
	return state
}

// info is INFO with the sections asked for; none: all of them. A script may ask, and holds the lock of miniredis then,
// so nothing here may take that.
func (r *redisServer) info(asked []string) string {
	srv := r.mini.Server()
	sections := []struct{ name, lines string }{
		{"Server", "redis_version:" + redisVersion + "\nredis_mode:standalone\ntcp_port:" + portOf(r.addr)},
		{"Clients", fmt.Sprintf("connected_clients:%d\nblocked_clients:0", srv.ClientsLen())},
		{"Memory", "used_memory:0\nmaxmemory:0\nmaxmemory_policy:noeviction"},
		{"Persistence", "loading:0\naof_enabled:0\nrdb_last_bgsave_status:ok"},
		{"Stats", fmt.Sprintf("total_connections_received:%d\ntotal_commands_processed:%d\nevicted_keys:0",
			srv.TotalConnections(), srv.TotalCommands())},
		{"Replication", "role:master\nconnected_slaves:0"},
		{"Cluster", "cluster_enabled:0"},
	}
	var b bytes.Buffer
	for _, s := range sections {
		if wanted(s.name, asked) {
			fmt.Fprintf(&b, "# %s\n%s\n\n", s.name, s.lines)
		}
	}
	return strings.ReplaceAll(b.String(), "\n", "\r\n")
}

func wanted(section string, asked []string) bool {
	for _, a := range asked {
		switch strings.ToLower(a) {
		case strings.ToLower(section), "all", "default", "everything":
			return true
		}
	}
	return len(asked) == 0
}

// settings are what CONFIG GET knows, in the order it shows them.
var settings = [][2]string{
	{"appendfsync", "everysec"}, {"appendonly", "no"}, {"databases", "16"}, {"maxclients", "10000"}, {"maxmemory", "0"},
	{"maxmemory-policy", "noeviction"}, {"proto-max-bulk-len", "536870912"}, {"save", ""}, {"timeout", "0"},
}

func configGet(c *server.Peer, args []string) bool {
	if len(args) < 2 || !strings.EqualFold(args[0], "GET") {
		return false
	}
	var found []string
	for _, s := range settings {
		for _, glob := range args[1:] {
			if ok, _ := path.Match(strings.ToLower(glob), s[0]); ok {
				found = append(found, s[0], s[1])
				break
			}
		}
	}
	c.WriteMapLen(len(found) / 2)
	for _, s := range found {
		c.WriteBulk(s)
	}
	return true
}

func clientCommand(c *server.Peer, id int64, args []string) bool {
	if len(args) == 0 {
		return false
	}
	switch strings.ToUpper(args[0]) {
	case "ID":
		c.WriteInt(int(id))
	case "SETINFO", "NO-EVICT", "NO-TOUCH":
		c.WriteOK()
	case "INFO", "LIST":
		c.WriteBulk(fmt.Sprintf("id=%d name=%s db=0 user=default\n", id, c.ClientName))
	default:
		return false
	}
	return true
}
