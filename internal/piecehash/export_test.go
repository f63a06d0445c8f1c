package piecehash

// WhileRead calls f while another goroutine may read hashes.
func (p *Pieces) WhileRead(f func()) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	f()
}
