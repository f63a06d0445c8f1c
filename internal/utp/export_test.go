package utp

// Connections is how many connections packets are looked up among.
func Connections(s *Socket) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
