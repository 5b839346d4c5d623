package proxy

import (
	"context"
	"math"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// SetMappings puts other mappings in force, for every command that is read from now on.
func (s *Server) SetMappings(set *mapping.Set) { s.maps.Store(set) }

// SetMaxClients bounds the clients there may be at one time, from the next one on.
func (s *Server) SetMaxClients(most int) { s.most.Store(int64(most)) }

// reloadPatience is no limit: a reload ends by itself, and is not to be half told of.
const reloadPatience = time.Duration(math.MaxInt64)

// keyrowReload serves KEYROW RELOAD: it answers what changed.
func (s *session) keyrowReload() {
	if !s.allowed("EVAL", "return 0", "1", s.srv.journal.Meta()) {
		return
	}
	var changes []string
	err := s.aside(reloadPatience, func(context.Context) (err error) {
		changes, err = s.srv.reload()
		return err
	})
	if err != nil {
		s.refuse(refused(err.Error()))
		return
	}
	b := redcon.AppendArray(nil, len(changes))
	for _, change := range changes {
		b = redcon.AppendBulkString(b, change)
	}
	s.answer(b)
}
