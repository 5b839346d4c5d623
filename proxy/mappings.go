package proxy

import "keyrow/mapping"

// SetMappings puts other mappings in force, for every command that is read from now on.
func (s *Server) SetMappings(set *mapping.Set) { s.maps.Store(set) }
