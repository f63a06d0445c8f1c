package merkle

// Above are the layers that t keeps above its own, from the roots of runs to the root.
func (t *Tree) Above() [][]byte { return t.above }
